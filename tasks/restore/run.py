"""One restore from the first question to the answer."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.config.models import Config
from infra.hypervisor.connection import Hypervisor
from tasks.restore import files
from tasks.restore.archive import open_archive
from tasks.restore.checks import check_copy_name
from tasks.restore.directory import restore_directory
from tasks.restore.domain import restore_domain
from tasks.restore.find import find_archive
from tasks.restore.host import require_name_free
from tasks.restore.job import Done, Job, Request
from tasks.restore.model import Mode
from tasks.restore.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. Bytes and seconds."""

    vm: str  # as it is called in the archive
    archive: str
    repository: str
    source_uuid: str  # of the VM that was archived
    hypervisor: str  # where it was archived, by the configured name
    mode: Mode
    name: str
    uuid: str
    disks: dict[str, str]  # path by disk target
    consistency: str
    size: int  # of the images, holes included
    seconds: float
    started: bool
    definition: str  # --files-only: the definition that names the extracted files
    kept: tuple[str, ...]  # what was there before and still is, under a new name
    warnings: tuple[str, ...]


def _silent(_done: int, _total: int) -> None:
    pass


def _mute(_text: str) -> None:
    pass


def restore(
    config: Config, request: Request, *, progress: files.Progress = _silent, say: Callable[[str], None] = _mute
) -> Restored:
    """Bring a VM back. `say` is told at once what takes its time.

    Raises RestoreError (UnsafeArchive, TargetExists), NoSpace, StorageError, DomainBusy, ArchiveNotFound,
    ArchiveIncomplete, ManifestError, ImageError, UsageError and what borg and libvirt say. Nothing is left of it then,
    except on a block device that was written over, which the error names, and except for a VM that is restored whole
    and does not start.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        hypervisor = None
        if request.wish.mode is Mode.COPY:
            check_copy_name(request.wish.name)
        if request.wish.mode is not Mode.FILES:
            hypervisor = stack.enter_context(Hypervisor.open(config.hypervisor.uri))
        if hypervisor is not None and request.wish.mode is Mode.COPY:
            require_name_free(hypervisor, request.wish.name)
        found = find_archive(config, request, hypervisor, say=say)
        workspace = stack.enter_context(Workspace(f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
        opened = open_archive(found.repository, found.archive, workspace.staging(config.state_dir))
        job = Job(config, request, found.repository, opened, workspace, progress)
        done = restore_domain(job, hypervisor) if hypervisor is not None else restore_directory(job)
        return _finished(job, done, seconds=time.monotonic() - began)


def _finished(job: Job, done: Done, *, seconds: float) -> Restored:
    manifest, plan = job.opened.manifest, done.plan
    return Restored(
        vm=manifest.vm,
        archive=job.opened.name,
        repository=job.repository.name,
        source_uuid=manifest.uuid,
        hypervisor=manifest.hypervisor,
        mode=plan.mode,
        name=plan.name,
        uuid=plan.uuid,
        disks=dict(done.disks),
        consistency=str(manifest.consistency),
        size=sum(file.size for file in plan.files) + sum(device.size for device in plan.devices),
        seconds=seconds,
        started=done.started,
        definition=done.definition,
        kept=done.kept,
        warnings=tuple(job.warnings),
    )
