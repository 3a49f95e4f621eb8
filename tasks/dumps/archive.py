"""The steps `keep` and `archive`: the new tree takes the place of the old one, and borg stores it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from infra.borg.client import Repository
from infra.borg.comment import render_comment
from infra.borg.names import UNFINISHED, dump_glob
from infra.borg.plain_files import create_files
from infra.dumps.manifest import FILE, DumpedSource, DumpManifest
from infra.dumps.tree import CONTENT
from infra.errors import (
    ArchiveIncomplete,
    ArchiveNotFound,
    RepositoryLocked,
    RepositoryUnreachable,
    VmborgError,
)
from tasks.destinations import ArchiveFigures, RepositoryResult
from tasks.dumps.job import DumpJob
from tasks.policy import step
from tasks.progress import Progress, tell

logger = logging.getLogger("vmborg.dumps")

VERIFY_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class DumpResult:
    """One host's pull, as `vmborg dumps pull --json` prints it. Sizes in bytes, times in seconds."""

    host: str
    repository: str  # the first that has it; `stored` is of this one
    archive: str  # "" when nothing new came
    size: int  # of all dumps in the tree
    stored: int  # new in the repository
    borg_seconds: float
    sources: tuple[DumpedSource, ...] = field(default=())
    repositories: tuple[RepositoryResult, ...] = ()  # all that it was to go to
    unexpected: str = ""  # what is unexpected about the amount of new data

    @property
    def partial(self) -> bool:
        """Whether something that was wanted is missing or old, or a repository has no archive."""
        return bool(self.problems) or not all(source.good for source in self.sources)

    @property
    def problems(self) -> tuple[str, ...]:
        """What failed, a line each."""
        lacking = [f"not in {each.repository}: {each.error['brief']}" for each in self.repositories if each.error]
        return (*(problem for source in self.sources for problem in source.problems), *lacking)


@step("repository", retries=True)
def open_first(job: DumpJob, repository: Repository) -> None:
    """See that a repository opens, before hours of dumps are pulled for it. Raises borg's typed errors."""
    try:
        repository.probe()
    except RepositoryLocked as error:  # it may be free when the dumps are there
        logger.info("%s: %s", job.name, error.brief)


@step("keep")
def keep_tree(job: DumpJob, sources: Sequence[DumpedSource]) -> DumpManifest:
    """Write the manifest and put the new tree in the place of the old one. Raises NoSpace, StorageError."""
    manifest = DumpManifest(
        host=job.name,
        address=job.endpoint.address,
        hypervisor=job.config.hypervisor.name,
        vmborg=version("vmborg"),
        started=job.started,
        sources=tuple(sources),
    )
    job.tree.commit(manifest)
    return manifest


@step("archive", retries=True)
def archive_tree(job: DumpJob, manifest: DumpManifest, repository: Repository) -> ArchiveFigures:
    """Store the tree under an unfinished name, compare what borg stored with the manifest, name the archive.

    A repository that hangs is given up at the host's `deadline`. Raises ArchiveIncomplete (nothing is left in the
    repository then), and borg's typed errors.
    """
    _drop_unfinished(job, repository)
    tell(Progress(job.name, 0, 0, "storing the dumps"))
    path = f"{job.tree.latest}/./{CONTENT}"
    try:
        created = create_files(
            repository,
            job.unfinished_archive,
            path,
            comment=render_comment(_comment(job, manifest)),
            files_cache_suffix=f"dump.{job.name}".replace("/", "_"),
            timeout=job.host.deadline,
        )
        _verify(job, manifest, repository)
    except RepositoryUnreachable:  # it would not answer this either
        raise
    except VmborgError:
        _drop_unfinished(job, repository)
        raise
    repository.rename(job.unfinished_archive, job.archive)
    logger.info("archive %s: %d bytes, %d stored", job.archive, created.original_size, created.deduplicated_size)
    return ArchiveFigures(
        archive=job.archive,
        disks=(),
        original=created.original_size,
        stored=created.deduplicated_size,
        seconds=created.seconds,
        repository_size=created.repository_size,
    )


def _comment(job: DumpJob, manifest: DumpManifest) -> dict[str, str]:
    return {
        "v": "1",
        "dump_host": job.name,
        "host": job.config.hypervisor.name,
        "time": job.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sources": ",".join(f"{source.source}:{len(source.dumps)}" for source in manifest.sources),
        "size": str(manifest.size),
        "bad": ",".join(source.source for source in manifest.sources if not source.good),
        "vm": job.vm,
    }


def _verify(job: DumpJob, manifest: DumpManifest, repository: Repository) -> None:
    items = {item.path: item.size for item in repository.items(job.unfinished_archive)}
    wrong = [] if f"{CONTENT}/{FILE}" in items else ["no manifest"]
    for source in manifest.sources:
        for dump in source.dumps:
            found = items.get(f"{CONTENT}/{dump.path}")
            if found != dump.size:
                wrong.append(f"{dump.path}: {found} bytes stored, {dump.size} expected")
    if wrong:
        raise ArchiveIncomplete(
            "What borg stored is not what the manifest promises; the archive was deleted.",
            evidence="\n".join(wrong[:20]),
            remedy="Pull again; if it happens twice, look at the storage of the state directory.",
        )


def _drop_unfinished(job: DumpJob, repository: Repository) -> None:
    """Delete what pulls of this host left whose run died before its archive was verified."""
    try:
        found = repository.archives(dump_glob(job.name))
        # Another hypervisor may pull a host of the same name into the same repository now.
        ours = [each for each in found if each.comment.get("host") == job.config.hypervisor.name]
        repository.delete([each.name for each in ours if each.name.endswith(UNFINISHED)])
    except ArchiveNotFound:
        return
