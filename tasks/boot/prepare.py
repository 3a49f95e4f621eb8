"""What a VM that runs out of an archive will be, decided and asked before anything is made."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from infra.config.models import Config
from infra.errors import NoSpace, StorageError, TargetExists
from infra.errors_views import HostUnfit
from infra.hypervisor.chain_xml import driver_of
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.restore_trust import emulators
from infra.journal.views import BootedDisk, BootedVm
from tasks.boot.end import scratch_folder
from tasks.boot.known import chain_of, find_booted
from tasks.restore.checks import check_copy_name
from tasks.restore.definition import Vouched, fitting_definition
from tasks.restore.host import by_uuid, require_name_free
from tasks.restore.model import Host, Mode, Plan, Wish
from tasks.restore.plan import make_plan
from tasks.restore.workspace import require_space
from tasks.suits import unsupported
from tasks.views.opening import Chosen
from tasks.views.view import ViewDisk, view_disks

_AT_LEAST = 64 * 1024**2
"""Bytes that a guest writes before it has booted."""

_ANOTHER_NAME = "Choose another name with --as. One that was booted before ends with: vmborg boot --discard NAME"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A VM to be made."""

    vm: BootedVm
    plan: Plan  # of its firmware state and boot files; its images stay in the archive
    xml: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for. `keep` is absolute or empty; `allow` and `leave_out` as in tasks.restore.model.Wish."""

    name: str = ""
    keep: str = ""
    allow: frozenset[str] = frozenset()
    leave_out: frozenset[str] = frozenset()


def require_free(config: Config, hypervisor: Hypervisor, name: str) -> None:
    """Raise TargetExists for a name that a VM has, UsageError for one that none can have."""
    check_copy_name(name)
    found = find_booted(config, name)
    if found is not None:
        raise TargetExists(
            f"The VM {name!r} was booted already; nothing was changed.",
            evidence=f"it comes out of {found[0].archive}",
            remedy=f"Choose another name with --as, or end it: vmborg boot --discard {shlex.quote(name)}",
        )
    require_name_free(hypervisor, name, remedy=_ANOTHER_NAME)


def prepare(config: Config, hypervisor: Hypervisor, chosen: Chosen, choice: Choice) -> Prepared:
    """Decide where everything goes, and ask whether this host can and may.

    Raises HostUnfit, NoSpace, TargetExists, UnsafeArchive, and what `make_plan` raises.
    """
    manifest, xml = chosen.opened.manifest, chosen.opened.xml
    name = choice.name or f"{manifest.vm}-boot"
    require_free(config, hypervisor, name)
    capabilities = hypervisor.capabilities_xml()
    if why := unsupported(xml, capabilities):
        raise HostUnfit(
            "This host cannot boot it.", evidence=why, remedy="Boot it on another host, or bring back its files alone."
        )
    folder = choice.keep or scratch_folder(config, chosen.entry.number)
    wish = Wish(Mode.COPY, name, str(uuid4()), folder, allow=choice.allow, leave_out=choice.leave_out)
    original = by_uuid(hypervisor, manifest.uuid)
    host = Host(current_xml=original.inactive_xml() if original else "")  # nothing of any VM makes way for a new one
    plan = make_plan(manifest, xml, wish, host)
    place = _Place(f"{folder}/{name}", stays=bool(choice.keep))
    stored = {disk.target: sum(image.allocated for image in disk.chain) for disk in manifest.disks}
    shown = view_disks(chosen.entry.place, manifest)
    vm = BootedVm(
        name=name,
        uuid=wish.uuid,
        folder=folder,
        disks=tuple(
            _disk(disk, stored[disk.target], driver_of(xml, disk.target), place) for disk in _with_disks(shown)
        ),
        boot_files=tuple((role, file.target) for role, file in plan.boot_files),
        tpm=plan.tpm.target if plan.tpm else "",
        keep=choice.keep,
    )
    _require_new(vm)
    overlays = {disk.target: disk.overlay for disk in vm.disks}
    paths = {file.archive_path: file.target for file in plan.all_files}
    paths |= {chain.images[0].archive_path: overlays[chain.target] for chain in plan.chains}
    vouched = Vouched(emulators(capabilities), host.current_xml, choice.allow)
    chains = {disk.target: chain_of(disk, moved=False) for disk in vm.disks}
    made = fitting_definition(xml, plan, paths, vouched, chains=chains)
    _require_space(vm, plan, reserve=config.policy(manifest.vm).min_free)
    return Prepared(vm, plan, made.xml, made.warnings)


def _with_disks(shown: tuple[ViewDisk, ...]) -> tuple[ViewDisk, ...]:
    if not shown:
        raise HostUnfit("The archive holds no disk, so there is nothing to boot.", remedy="See `vmborg list`.")
    return shown


class _Place(NamedTuple):
    """Where overlays go: the beginning of their paths, and whether that is where they stay."""

    stem: str
    stays: bool


def _disk(disk: ViewDisk, stored: int, driver: tuple[str, str], place: _Place) -> BootedDisk:
    overlay = f"{place.stem}-{disk.target}.qcow2"
    return BootedDisk(
        disk.target,
        overlay,
        disk.size,
        below=tuple((image.path, image.format) for image in disk.chain),
        stored=stored,
        cache=driver[0],
        io=driver[1],
        kept=overlay if place.stays else "",
    )


def _require_new(vm: BootedVm) -> None:
    there = [disk.overlay for disk in vm.disks if Path(disk.overlay).exists()]
    if there:
        raise TargetExists(f"{there[0]} exists already; nothing was changed.", remedy="Move it away, or name another.")


def _require_space(vm: BootedVm, plan: Plan, *, reserve: int) -> None:
    """A guest on a full disk stands still; one that is to be kept needs all of its disks."""
    folder = Path(vm.folder)
    needs = [(file.directory, file.allocated) for _, file in plan.boot_files]
    needs += [(folder, file.allocated) for file in plan.files] if vm.keep else [(folder, _AT_LEAST)]
    try:
        require_space(needs, reserve=reserve, for_images=[folder])
    except NoSpace as error:
        raise NoSpace(
            "There is not enough room for what the guest will write; nothing was made.",
            evidence=error.evidence,
            remedy="Free space there, or name another place: drills.scratch, or --keep DIR.",
        ) from error
    except OSError as error:
        raise StorageError(f"Nothing can be written to {folder}.", evidence=str(error)) from error
