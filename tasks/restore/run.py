"""One restore from the first question to the answer."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.borg.client import Repository
from infra.config.models import Config
from infra.hypervisor.connection import Hypervisor
from tasks.repositories import open_repository
from tasks.restore import files
from tasks.restore.archive import archive_names, choose, open_archive
from tasks.restore.checks import check_copy_name
from tasks.restore.directory import restore_directory
from tasks.restore.domain import restore_domain
from tasks.restore.host import named_domains, require_name_free
from tasks.restore.job import Done, Job, Request
from tasks.restore.model import Mode
from tasks.restore.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. Bytes and seconds."""

    vm: str  # as it is called in the archive
    archive: str
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


def restore(config: Config, request: Request, *, progress: files.Progress = _silent) -> Restored:
    """Bring a VM back.

    Raises RestoreError (UnsafeArchive, TargetExists), NoSpace, StorageError, DomainBusy, ArchiveNotFound,
    ArchiveIncomplete, ManifestError, ImageError, UsageError and what borg and libvirt say. Nothing is left of it then,
    except on a block device that was written over, which the error names, and except for a VM that is restored whole
    and does not start.
    """
    began = time.monotonic()
    repository = open_repository(config, request.repository or config.policy(request.vm).repository)
    with ExitStack() as stack:
        hypervisor = None
        if request.wish.mode is not Mode.FILES:
            hypervisor = stack.enter_context(Hypervisor.open(config.hypervisor.uri))
        if hypervisor is not None and request.wish.mode is Mode.COPY:
            check_copy_name(request.wish.name)
            require_name_free(hypervisor, request.wish.name)
        archive = _choose(repository, request, hypervisor)
        workspace = stack.enter_context(Workspace(f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
        opened = open_archive(repository, archive, workspace.staging(config.state_dir))
        job = Job(config, request, repository, opened, workspace, progress)
        done = restore_domain(job, hypervisor) if hypervisor is not None else restore_directory(job)
        return _finished(job, done, seconds=time.monotonic() - began)


def _choose(repository: Repository, request: Request, hypervisor: Hypervisor | None) -> str:
    uuid = ""
    if hypervisor is not None:  # it may have had another name when it was backed up
        uuid = next((domain.uuid for name, domain in named_domains(hypervisor) if name == request.vm), "")
    names = archive_names(repository.archives())
    return choose(names, request.vm, request.archive, uuid=uuid, repository=repository.name).name


def _finished(job: Job, done: Done, *, seconds: float) -> Restored:
    manifest, plan = job.opened.manifest, done.plan
    return Restored(
        vm=manifest.vm,
        archive=job.opened.name,
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
