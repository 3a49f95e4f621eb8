"""The end of a VM that runs out of an archive: its domain, its files, then the view."""

import os
import shlex
from pathlib import Path

from infra.config.models import Config
from infra.errors import DomainNotFound, VmborgError
from infra.errors_views import BootLeft
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.references import users_of
from infra.journal.views import BootedVm, OpenView, ViewJournal
from tasks.boot.known import require_booted
from tasks.restore.host import existing_directories, is_off
from tasks.restore.workspace import leftovers, remove_tree
from tasks.views.view import close_view

PREFIX = "vmborg-boot-"


def scratch_folder(config: Config, number: str) -> str:
    """Where the overlays of a VM are that is not kept from the beginning."""
    return str(config.drills.scratch / f"{PREFIX}{number}")


def discard(config: Config, name: str) -> tuple[BootedVm, list[str]]:
    """End the VM and delete all that was made for it, what its guest wrote too; what was done.

    Raises NotBooted for any other VM, DomainBusy when a command works on it, BootLeft.
    """
    journal = ViewJournal(config.state.views)
    view, vm = require_booted(config, name)
    with journal.hold(view.number):
        current = journal.read(view.number)
        return vm, take_away(config, current, journal) if current is not None else []


def take_away(config: Config, view: OpenView, journal: ViewJournal) -> list[str]:
    """The same for a view that its caller holds. One that is on files of its own keeps its domain and those.

    Raises BootLeft; the entry stays then.
    """
    vm = view.boot
    done: list[str] = []
    if vm is not None:
        try:
            with Hypervisor.open(config.hypervisor.uri) as hypervisor:
                done += [] if vm.kept else _end_domain(hypervisor, vm)
                done += _delete(hypervisor, config, view, vm)
        except (VmborgError, OSError) as error:
            raise BootLeft(
                f"What was made for the VM {vm.name!r} could not be taken away.",
                evidence=str(error),
                remedy="Mend what the evidence names, then run `vmborg recover`, or "
                f"vmborg boot --discard {shlex.quote(vm.name)}",
            ) from error
    return [*done, *close_view(view, journal)]


def _end_domain(hypervisor: Hypervisor, vm: BootedVm) -> list[str]:
    try:
        domain = hypervisor.by_uuid(vm.uuid)
        if not is_off(domain):
            domain.destroy()
        domain.undefine(keep_nvram=False)
    except DomainNotFound:
        return []
    return [f"ended and undefined the VM {vm.name}"]


def files_of(vm: BootedVm) -> list[str]:
    """Every file that is only there for it; of one that is on files of its own, its former overlays."""
    images = [path for disk in vm.disks for path in (disk.overlay, disk.kept) if path]
    if vm.kept:
        stays = {disk.kept for disk in vm.disks}
        return [path for path in dict.fromkeys(images) if path not in stays]
    return [*dict.fromkeys(images), *(path for _, path in vm.boot_files)]


def _delete(hypervisor: Hypervisor, config: Config, view: OpenView, vm: BootedVm) -> list[str]:
    """Raises BootLeft for a file that a domain has in a chain, StorageError, OSError."""
    there = [path for path in files_of(vm) if os.path.lexists(path)]
    used = {path: users for path, users in users_of(hypervisor, there).items() if users}
    if used:
        raise BootLeft(
            "Its images are used by a VM.", evidence="\n".join(f"{path}: {', '.join(by)}" for path, by in used.items())
        )
    for path in there:
        Path(path).unlink(missing_ok=True)
    if vm.tpm and not vm.kept and (state := Path(vm.tpm).parent).exists():
        remove_tree(state)
    parents = frozenset([*files_of(vm), f"{vm.folder}/x", f"{config.state_dir}/x"])
    for path in leftovers(existing_directories(parents)):
        remove_tree(path)
    folder = Path(vm.folder)
    if folder.name == f"{PREFIX}{view.number}" and folder.is_dir():
        remove_tree(folder)
        there = [*there, str(folder)]
    return [f"deleted {path}" for path in there]
