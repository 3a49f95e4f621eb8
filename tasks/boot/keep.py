"""A VM that runs out of an archive moves into files of its own, while it runs: a block pull a disk.

What the guest writes goes into the image that stays from the first moment on, so the work can be cut off at any point,
by us, by the guest's shut-off or by a crash of the host: what was copied is there, and the next call goes on from it.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from infra.config.models import Config
from infra.errors import (
    DomainBusy,
    DomainNotFound,
    DomainStateChanged,
    StorageError,
    TargetExists,
    UsageError,
    VmborgError,
)
from infra.errors_views import CopyEnded, NotBooted, ViewDead
from infra.hypervisor import images
from infra.hypervisor.chain_xml import Chain, with_chains
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.parsed import ParsedDisk
from infra.hypervisor.references import users_of
from infra.hypervisor.snapshot import request_xml
from infra.journal.views import BootedDisk, BootedVm, OpenView, ViewJournal
from tasks.boot.end import take_away
from tasks.boot.known import after_death, require_booted, to_go_on, to_throw_away, works
from tasks.health import vm_argument
from tasks.restore.host import is_off
from tasks.restore.workspace import require_space
from tasks.views.view import update

Progress = Callable[[int, int], None]
Mark = Callable[[str], None]
"""Told of each step: chosen, moved, copied, settled."""

_POLL_S = 0.25
_ENDED_LOOKS = 3  # a job is taken for ended when so many looks in a row show none
_PULL = "pull"


def _unmarked(_step: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Kept:
    """A VM on files of its own. Bytes and seconds."""

    name: str
    uuid: str
    archive: str
    disks: dict[str, str]  # image by disk target
    size: int  # what the guest sees of them
    seconds: float


def keep_booted(config: Config, name: str, directory: Path, *, progress: Progress, mark: Mark = _unmarked) -> Kept:
    """Copy what is missing into `directory`, until the VM needs nothing of the archive; called again, it goes on.

    Raises NotBooted, DomainStateChanged (it is shut off), ViewDead, NoSpace, TargetExists, UsageError (it is moving
    elsewhere), CopyEnded, BootLeft; the VM goes on as it is then.
    """
    began = time.monotonic()
    journal = ViewJournal(config.state.views)
    view, _ = require_booted(config, name)
    with journal.hold(view.number), Hypervisor.open(config.hypervisor.uri) as hypervisor:
        current = journal.read(view.number)
        if current is None or current.boot is None:
            raise NotBooted(f"The VM {name!r} is not there any more.")
        vm = _Keep(config, hypervisor, journal, current, current.boot).run(directory, progress, mark)
    disks = {disk.target: disk.kept for disk in vm.disks}
    size = sum(disk.size for disk in vm.disks)
    return Kept(vm.name, vm.uuid, view.archive, disks, size, time.monotonic() - began)


@dataclass(slots=True)
class _Keep:
    config: Config
    hypervisor: Hypervisor
    journal: ViewJournal
    view: OpenView
    vm: BootedVm

    def run(self, directory: Path, progress: Progress, mark: Mark) -> BootedVm:
        domain = self._running()
        self._choose(domain, directory)
        mark("chosen")
        self._move_writes(domain)
        mark("moved")
        self._pull(domain, progress)
        mark("copied")
        self._settle(domain)
        mark("settled")
        take_away(self.config, self.view, self.journal)
        return self.vm

    def _set(self, **changes: object) -> None:
        self.vm = replace(self.vm, **changes)
        self.view = update(self.view, self.journal, boot=self.vm)

    def _running(self) -> Domain:
        try:
            domain = self.hypervisor.by_uuid(self.vm.uuid)
        except DomainNotFound as error:
            raise NotBooted(
                f"The VM {self.vm.name!r} is not defined any more.",
                evidence=error.evidence,
                remedy=to_throw_away(self.vm),
            ) from error
        if is_off(domain):
            raise DomainStateChanged(
                f"The VM {self.vm.name!r} is shut off: its disks are copied while it runs.",
                evidence=f"what was copied is in {self.vm.keep}" if self.vm.keep else "nothing is copied yet",
                remedy=f"virsh start {vm_argument(self.vm.name)}, then the same call again.",
            )
        if not works(self.view, self.vm):
            raise ViewDead(
                f"The archive that {self.vm.name!r} runs from is not shown any more.",
                evidence=f"a mount below {self.view.place} died",
                remedy=after_death(self.vm),
            )
        return domain

    def _moved(self, domain: Domain) -> bool:
        """Whether a guest writes there already."""
        live = domain.live()
        tops = {disk.image.path for disk in live.disks} if live else set[str]()
        return any(disk.kept and disk.kept in tops for disk in self.vm.disks)

    def _choose(self, domain: Domain, directory: Path) -> None:
        """Write down where every disk goes. Raises UsageError, TargetExists, NoSpace, StorageError."""
        if self.vm.keep == str(directory):
            return
        if self._moved(domain):
            raise UsageError(
                f"The VM {self.vm.name!r} is moving into another folder already.",
                evidence=self.vm.keep,
                remedy=to_go_on(self.vm),
            )
        for path in filter(None, (disk.kept for disk in self.vm.disks)):
            Path(path).unlink(missing_ok=True)  # of a snapshot that failed there
        disks = tuple(replace(disk, kept=str(directory / Path(disk.overlay).name)) for disk in self.vm.disks)
        there = [disk.kept for disk in disks if Path(disk.kept).exists()]
        if there:
            raise TargetExists(f"{there[0]} exists already; nothing was changed.", remedy="Name another folder.")
        try:
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{directory} cannot be made.", evidence=str(error)) from error
        reserve = self.config.policy(self.view.vm).min_free
        require_space([(directory, self._needed())], reserve=reserve, for_images=[directory])
        self._set(keep=str(directory), disks=disks)

    def _needed(self) -> int:
        """Bytes: what the images of the archive hold, and what the guest has written."""
        return sum(disk.stored + images.allocated(disk.overlay) for disk in self.vm.disks)

    def _move_writes(self, domain: Domain) -> None:
        """From here on the guest writes into the images that stay. One snapshot of all disks, or nothing."""
        live = domain.live()
        tops = {disk.target: disk.image.path for disk in live.disks} if live else {}
        moving = [disk for disk in self.vm.disks if tops.get(disk.target) == disk.overlay and disk.kept != disk.overlay]
        lost = [disk for disk in self.vm.disks if tops.get(disk.target) not in {disk.overlay, disk.kept}]
        if lost:
            raise DomainStateChanged(
                f"The disks of {self.vm.name!r} are not where they were.",
                evidence="\n".join(f"{disk.target}: {tops.get(disk.target, 'gone')}" for disk in lost),
            )
        if not moving:
            return
        for disk in moving:
            Path(disk.kept).unlink(missing_ok=True)  # of a snapshot that failed; the journal says that it is ours
        domain.snapshot(request_xml(f"keep-{self.vm.uuid}", tops, {disk.target: disk.kept for disk in moving}))
        for disk in moving:
            Path(disk.kept).chmod(0o600)

    def _pull(self, domain: Domain, progress: Progress) -> None:
        """Disk by disk, never in parallel. Cut off, the job ends too; what it has copied stays."""
        total, done = sum(disk.size for disk in self.vm.disks), 0
        for disk in self.vm.disks:
            try:
                self._pull_one(domain, disk, lambda step, done=done: progress(done + step, total))
            except BaseException:
                with suppress(VmborgError):
                    if domain.block_job(disk.target) is not None:
                        domain.abort_job(disk.target)
                raise
            done += disk.size
            progress(done, total)

    def _pull_one(self, domain: Domain, disk: BootedDisk, progress: Callable[[int], None]) -> None:
        if _is_alone(self._look(domain, disk)):
            return
        if domain.block_job(disk.target) is None:
            domain.block_pull(disk.target)
        without = 0
        while without < _ENDED_LOOKS:
            job = domain.block_job(disk.target)
            if job is not None and job.kind != _PULL:
                raise DomainBusy(
                    f"Disk {disk.target} of {self.vm.name!r} is in a block job of somebody else's.",
                    evidence=job.kind,
                    remedy="Wait for it (virsh blockjob), then the same call again.",
                )
            if job is None and _is_alone(self._look(domain, disk)):
                return
            without = without + 1 if job is None else 0
            if job is not None:
                progress(disk.size * job.cur // max(job.end, 1))
            time.sleep(_POLL_S)
        raise self._ended(disk)

    def _look(self, domain: Domain, disk: BootedDisk) -> ParsedDisk:
        """The disk as it is now. Raises DomainStateChanged, CopyEnded."""
        try:
            live = domain.live()
        except DomainNotFound:
            live = None
        found = live.disk(disk.target) if live else None
        if found is None:
            raise CopyEnded(
                f"The VM {self.vm.name!r} was shut off while its disks were copied.",
                evidence=f"what was copied is in {self.vm.keep}; the rest is read from the archive",
                remedy=f"virsh start {vm_argument(self.vm.name)}, then {to_go_on(self.vm)}",
            )
        if found.image.path != disk.kept:
            raise DomainStateChanged(
                f"Disk {disk.target} of {self.vm.name!r} is not where it was.", evidence=found.image.path
            )
        return found

    def _ended(self, disk: BootedDisk) -> VmborgError:
        if not works(self.view, self.vm):
            return ViewDead(
                f"The archive that {self.vm.name!r} runs from died while disk {disk.target} was copied.",
                evidence=f"a mount below {self.view.place} does not answer; what was copied is in {self.vm.keep}",
                remedy=after_death(self.vm),
            )
        free = shutil.disk_usage(self.vm.keep).free
        return CopyEnded(
            f"The copy of disk {disk.target} ended early; {self.vm.name!r} goes on as it is.",
            evidence=f"qemu ended the job; the file system of {self.vm.keep} has {free} bytes free",
            remedy=f"Make room there, or look at /var/log/libvirt/qemu and at the repository; then {to_go_on(self.vm)}",
        )

    def _settle(self, domain: Domain) -> None:
        """The definition for the next start; and the journal that says that only the rest is to be taken away."""
        moved = self._copy_boot_files()
        alone = {disk.target: Chain(((disk.kept, "qcow2"),), disk.cache, disk.io) for disk in self.vm.disks}
        self.hypervisor.define(with_chains(domain.inactive_xml(), alone, moved))
        former = [path for disk in self.vm.disks for path, _ in disk.below]
        former += [disk.overlay for disk in self.vm.disks if disk.overlay != disk.kept]
        used = {path: by for path, by in users_of(self.hypervisor, former).items() if by}
        if used:
            raise CopyEnded(
                f"{self.vm.name!r} was copied, and what it came from is still used.",
                evidence="\n".join(f"{path}: {', '.join(by)}" for path, by in used.items()),
                remedy=f"Look at virsh domblklist; then {to_go_on(self.vm)}",
            )
        self._set(kept=True)

    def _copy_boot_files(self) -> dict[str, str]:
        """Kernel and the like lie beside the overlays, which go: new paths by role."""
        folder = Path(self.vm.folder)
        if str(folder) == self.vm.keep:
            return {}
        here = {role: path for role, path in self.vm.boot_files if Path(path).parent == folder}
        new = {role: f"{self.vm.keep}/{Path(path).name}" for role, path in here.items()}
        self._set(boot_files=tuple(dict.fromkeys((*self.vm.boot_files, *new.items()))))
        for role, path in here.items():
            try:
                shutil.copyfile(path, new[role])
            except OSError as error:
                raise StorageError(f"{path} cannot be copied into {self.vm.keep}.", evidence=str(error)) from error
        return new


def _is_alone(disk: ParsedDisk) -> bool:
    """Whether nothing is below the image any more: libvirt says so of a running domain once the job is done."""
    return disk.mirror is None and not disk.backing
