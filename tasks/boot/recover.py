"""What dead commands and reboots of the host left of VMs that run out of archives."""

import os
import shutil

from infra.config.models import Config
from infra.errors import StorageError
from infra.errors_views import ViewDead
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.security import qemu_owner
from infra.journal.views import BootedVm, OpenView, ViewJournal
from tasks.boot.end import take_away
from tasks.boot.known import after_death, to_throw_away, works
from tasks.health import vm_argument
from tasks.repositories import open_repository
from tasks.restore.archive import open_archive
from tasks.restore.host import by_uuid, is_off
from tasks.views.view import open_view, unmount_view, work_folder


def recover_booted(config: Config, view: OpenView, vm: BootedVm, journal: ViewJournal) -> list[str]:
    """Put one in order whose view the caller holds; what was done.

    A VM that its command had not told of yet is taken away. Of one that was told of, nothing is: its archive is mounted
    again if it is not. Raises ViewDead when only its administrator can decide, BootLeft, and what mounting raises.
    """
    if not view.standing or vm.kept:
        return [*take_away(config, view, journal), f"the view of {view.archive} is gone"]
    with Hypervisor.open(config.hypervisor.uri) as hypervisor:
        domain = by_uuid(hypervisor, vm.uuid)
        if domain is None:
            raise ViewDead(
                f"The VM {vm.name!r}, which was booted out of an archive, is not defined any more.",
                evidence=f"what its guest wrote: {_written(vm)}",
                remedy=to_throw_away(vm),
            )
        if works(view, vm):
            return []
        if not is_off(domain):
            raise ViewDead(
                f"A mount of the archive that {vm.name!r} runs from died: its guest reads errors.",
                evidence=f"{view.archive}, shown at {view.place}; what its guest wrote: {_written(vm)}",
                remedy=after_death(vm),
            )
        owner = qemu_owner(hypervisor.capabilities_xml())
    return [
        *_show_again(config, view, journal, owner),
        f"{view.archive} is mounted again; virsh start {vm_argument(vm.name)}",
    ]


def _written(vm: BootedVm) -> str:
    found = [path for disk in vm.disks for path in dict.fromkeys((disk.kept, disk.overlay)) if os.path.lexists(path)]
    return ", ".join(found) or "nothing is there"


def _show_again(config: Config, view: OpenView, journal: ViewJournal, owner: tuple[int, int]) -> list[str]:
    """At the same place, so that its definition and its overlays are right again."""
    done = unmount_view(view)
    work = work_folder(view, journal)
    repository = open_repository(config, view.repository)
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(mode=0o700)
        opened = open_archive(repository, view.archive, work)
        open_view(repository, opened.manifest, view, journal, owner=owner)
    except OSError as error:
        raise StorageError(f"{work} cannot be made.", evidence=str(error)) from error
    except BaseException:
        unmount_view(view)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return done
