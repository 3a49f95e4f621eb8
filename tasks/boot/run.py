"""Boot a VM out of an archive at once: a view of its disks, an overlay above each, a definition of its own."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from infra.config.models import Config
from infra.errors import StorageError
from infra.hypervisor import images
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.security import qemu_owner
from tasks.boot.end import take_away
from tasks.boot.prepare import Choice, Prepared, prepare, require_free
from tasks.restore import files
from tasks.restore.archive import LATEST
from tasks.restore.workspace import Workspace
from tasks.views.opening import Chosen, Say, chosen_archive
from tasks.views.view import View, open_view, update

Mark = Callable[[str], None]
"""Told of each step: journalled, shown, placed, defined, started."""


def _unmarked(_step: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which archive, and what it is to become."""

    vm: str  # name, or the beginning of a UUID
    archive: str = LATEST
    repository: str = ""
    choice: Choice = field(default_factory=Choice)


@dataclass(frozen=True, slots=True)
class Booted:
    """A VM that runs. Seconds until it was started."""

    vm: str  # as it is called in the archive
    archive: str
    repository: str
    name: str
    uuid: str
    disks: dict[str, str]  # overlay by disk target
    consistency: str
    seconds: float
    warnings: tuple[str, ...]


def boot(config: Config, wanted: Wanted, *, say: Say, mark: Mark = _unmarked) -> Booted:
    """Start a new VM from an archive, whose disks are only read. It stays until `discard` or `keep_booted`.

    Raises HostUnfit, UnsafeArchive, TargetExists, NoSpace, StorageError, ArchiveNotFound, ArchiveIncomplete,
    ManifestError, ImageError, and what borg and libvirt say; nothing of it is left then.
    """
    began = time.monotonic()
    with Hypervisor.open(config.hypervisor.uri) as hypervisor:
        if wanted.choice.name:
            require_free(config, hypervisor, wanted.choice.name)
        with chosen_archive(
            config,
            wanted.vm,
            archive=wanted.archive,
            repository=wanted.repository,
            say=say,
            close=partial(take_away, config),
            show=qemu_owner(hypervisor.capabilities_xml()),
        ) as chosen:
            prepared = prepare(config, hypervisor, chosen, wanted.choice)
            _start(config, hypervisor, chosen, prepared, mark=mark)
            shutil.rmtree(chosen.work, ignore_errors=True)
    manifest = chosen.opened.manifest
    return Booted(
        vm=manifest.vm,
        archive=chosen.opened.name,
        repository=chosen.repository.name,
        name=prepared.vm.name,
        uuid=prepared.vm.uuid,
        disks={disk.target: disk.overlay for disk in prepared.vm.disks},
        consistency=str(manifest.consistency),
        seconds=time.monotonic() - began,
        warnings=prepared.warnings,
    )


def _start(config: Config, hypervisor: Hypervisor, chosen: Chosen, prepared: Prepared, *, mark: Mark) -> None:
    entry = update(chosen.entry, chosen.journal, boot=prepared.vm)
    mark("journalled")
    owner = qemu_owner(hypervisor.capabilities_xml())
    view = open_view(chosen.repository, chosen.opened.manifest, entry, chosen.journal, owner=owner)
    _require_sound(chosen, view)
    mark("shown")
    _place(config, chosen, prepared)
    mark("placed")
    domain = hypervisor.define(prepared.xml)
    mark("defined")
    domain.start()
    mark("started")
    update(entry, chosen.journal, standing=True)


def _require_sound(chosen: Chosen, view: View) -> None:
    """Raise UnsafeArchive for an image that wants files beside itself, ImageError for one that cannot be read."""
    shown = {disk.target: disk for disk in view.disks}
    for disk in chosen.opened.manifest.disks:
        if disk.segment or not disk.chain:
            continue
        for image, found in zip(disk.chain, shown[disk.target].chain, strict=True):
            files.check_header(image, Path(found.path), last=image is disk.chain[-1])


def _place(config: Config, chosen: Chosen, prepared: Prepared) -> None:
    """Overlays, firmware state and boot files. What is there when it fails is in the journal."""
    vm, plan = prepared.vm, prepared.plan
    try:
        if not vm.keep:
            config.drills.scratch.mkdir(mode=0o711, parents=True, exist_ok=True)
        Path(vm.folder).mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {vm.folder} cannot be made.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Correct drills.scratch, or name another folder with --keep.",
        ) from error
    with Workspace(chosen.entry.number) as workspace:
        staged = files.stage_boot_files(plan, chosen.opened.directory, workspace)
        tpm = files.stage_tpm(plan.tpm, chosen.opened.directory, workspace) if plan.tpm else None
        for each in staged.values():
            workspace.move(each.path, Path(each.plan.target))
        if plan.tpm and tpm:
            workspace.move(tpm, Path(plan.tpm.target))
        for disk in vm.disks:
            below, below_format = disk.below[0]
            images.create_overlay(disk.overlay, backing=below, backing_format=below_format, size=disk.size)
            Path(disk.overlay).chmod(0o600)
        workspace.keep()
