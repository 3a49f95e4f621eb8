"""The VMs of this host that run out of archives, and those that drills boot: no backup is for them."""

import os
import shlex
from collections.abc import Iterable, Iterator

from infra.config.models import Config
from infra.errors import JournalError
from infra.errors_views import NotBooted
from infra.hypervisor.chain_xml import Chain
from infra.hypervisor.connection import Domain
from infra.hypervisor.qemu_process import life_of
from infra.journal.holder import holder
from infra.journal.views import BootedDisk, BootedVm, OpenView, ViewJournal
from tasks.drills.under_way import open_drills
from tasks.health import Finding, Health, vm_argument
from tasks.views.view import is_alive

CHECK = "boot"


def booted(config: Config) -> list[tuple[OpenView, BootedVm]]:
    """Every view with a VM on it, in the order of the journal."""
    views = ViewJournal(config.state.views).entries().views
    return [(view, view.boot) for view in views if view.boot is not None]


def find_booted(config: Config, name: str) -> tuple[OpenView, BootedVm] | None:
    """The VM of this name, or UUID, that was booted out of an archive and is not on files of its own yet."""
    return next(((view, vm) for view, vm in booted(config) if name in {vm.name, vm.uuid} and not vm.kept), None)


def require_booted(config: Config, name: str) -> tuple[OpenView, BootedVm]:
    """The same. Raises NotBooted."""
    found = find_booted(config, name)
    if found is None:
        known = ", ".join(vm.name for _, vm in booted(config) if not vm.kept)
        raise NotBooted(
            f"The VM {name!r} was not booted out of an archive, or stands on files of its own; nothing was touched.",
            evidence=f"booted: {known}" if known else "no VM of this host runs out of an archive",
            remedy="Name one that `vmborg boot` made; what else there is, virsh undefines.",
        )
    return found


def passing(config: Config) -> dict[str, str]:
    """What must not be backed up, by UUID: VMs that run out of an archive, and those of drills."""
    found = {vm.uuid: f"it runs out of the archive {view.archive}" for view, vm in booted(config) if not vm.kept}
    try:
        found |= {drill.uuid: f"it belongs to a drill of {drill.vm}" for drill in open_drills(config)}
    except JournalError:
        return found  # `recover` tells of it
    return found


def users_of_repository(config: Config, name: str) -> list[str]:
    """The VMs that run out of archives of this repository: nothing may be deleted from under them."""
    return [vm.name for view, vm in booted(config) if view.repository == name and not vm.kept]


def lasting(config: Config, domains: Iterable[Domain]) -> list[Domain]:
    """The others: those that a backup is for."""
    left_out = passing(config)
    return [domain for domain in domains if domain.uuid not in left_out]


def works(view: OpenView, vm: BootedVm) -> bool:
    """Whether every mount that the VM needs is there and answers."""
    return is_alive(view) and all(os.path.lexists(disk.base) for disk in vm.disks)


def chain_of(disk: BootedDisk, *, moved: bool) -> Chain:
    """A disk's images as they are now; `moved`: its guest writes to where it is to stay."""
    top = ((disk.kept, "qcow2"),) if moved and disk.kept != disk.overlay else ()
    return Chain((*top, (disk.overlay, "qcow2"), *disk.below))


def boot_findings(config: Config) -> Iterator[Finding]:
    """A line for each VM that runs out of an archive: good news, too. Asks no libvirt."""
    for view, vm in booted(config):
        yield _finding(view, vm, at_work=bool(holder(config.state.views, view.number)))


def _finding(view: OpenView, vm: BootedVm, *, at_work: bool) -> Finding:
    if at_work:
        return Finding(Health.OK, vm.name, CHECK, f"a command works on it; it comes out of {view.archive}")
    if not view.standing or vm.kept:
        return Finding(
            Health.WARNING, vm.name, CHECK, "what a dead `vmborg boot` left is there still", "vmborg recover"
        )
    if works(view, vm):
        moving = f"; its copy into {vm.keep} waits: {to_go_on(vm)}" if vm.keep else ""
        return Finding(Health.OK, vm.name, CHECK, f"runs out of the archive {view.archive}{moving}")
    if life_of(vm.uuid):
        text = f"a mount of {view.archive} died: its guest reads errors. What it wrote is in {vm.folder}"
        return Finding(Health.CRITICAL, vm.name, CHECK, text, after_death(vm))
    text = f"{view.archive}, which it lies on, is not mounted any more, so that it cannot start"
    return Finding(Health.WARNING, vm.name, CHECK, text, f"`vmborg recover` mounts it; or {to_throw_away(vm)}")


def after_death(vm: BootedVm) -> str:
    """What to do when the ground went from under a running guest."""
    name = vm_argument(vm.name)
    return f"virsh destroy {name}, then `vmborg recover`, then virsh start {name}; or {to_throw_away(vm)}"


def to_throw_away(vm: BootedVm) -> str:
    """The command that ends it."""
    return f"throw it away with all that it wrote: vmborg boot --discard {shlex.quote(vm.name)}"


def to_go_on(vm: BootedVm) -> str:
    """The command that copies the rest."""
    return f"vmborg boot --keep {shlex.quote(vm.keep)} {vm_argument(vm.name)}"
