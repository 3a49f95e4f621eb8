"""Steps that act on the repository: create the archive from the frozen bases, verify what borg stored."""

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from infra.borg.client import ArchiveItem, CreateResult
from infra.borg.comment import render_comment
from infra.errors import ArchiveIncomplete, ArchiveNotFound, DomainStateChanged, VmborgError, WindowExceeded
from infra.hypervisor.guard import OverlayGuard
from infra.manifest import ARCHIVE_DIR, ManifestDisk, expected_items
from infra.model import DomainState, ImageKind
from tasks.domains import FrozenPoint, image_stamps
from tasks.job import BackupJob
from tasks.policy import step
from tasks.progress import ProgressReporter
from tasks.recovery import DROP_LOCK_WAIT_S, DROP_TIMEOUT_S
from tasks.units import size

logger = logging.getLogger("vmborg.backup")

VERIFY_LOCK_WAIT_S = 4 * 3600
"""Another host's first backup may hold the repository so long; the guest is back, and the archive is worth waiting."""
_WATCH_INTERVAL_S = 1.0
_UNCHANGED = "U"


@dataclass(frozen=True, slots=True)
class DiskFigures:
    """One disk in the run's report; bytes."""

    target: str
    size: int  # what the guest sees
    read: int  # read from storage for this archive; 0 when borg knew the file to be unchanged
    stored: int  # new data in the repository after deduplication and compression


@dataclass(frozen=True, slots=True)
class ArchiveFigures:
    """What a verified archive holds and cost; bytes and seconds."""

    archive: str
    disks: tuple[DiskFigures, ...]
    original: int
    stored: int
    seconds: float


def _figures(disk: ManifestDisk, created: CreateResult, items: dict[str, ArchiveItem]) -> DiskFigures:
    read = [image for image in disk.chain if created.files.get(f"/{image.archive_path}") != _UNCHANGED]
    return DiskFigures(
        target=disk.target,
        size=disk.virtual_size,
        read=sum(image.allocated for image in read),
        stored=sum(items[image.archive_path].unique or 0 for image in disk.chain),
    )


class _Stop:
    """Why the copy has to end early, told by whoever watches; the first reason counts."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.error: VmborgError | None = None

    def __call__(self, error: VmborgError) -> None:
        if self.error is None:
            self.error = error
            self.event.set()


@step("create")
def create_archive(job: BackupJob, point: FrozenPoint) -> CreateResult:
    """`borg create` of the frozen images, under a name that says unfinished until verify.

    Raises WindowExceeded (space or deadline), DomainStateChanged (a shut-off domain was started), ArchiveIncomplete
    (a warning touched an image, or an image moved under the copy), and borg's typed errors. What borg kept then is
    dropped by `drop_unfinished`, once the guest is back.
    """
    total = sum(image.size for disk in point.facts.covered for image in disk.chain)
    reporter = ProgressReporter(source=job.name, key=f"backup-{job.uuid}", total=total)
    logger.info("reading %s of images into %s", size(total), job.unfinished_archive)
    stamps = image_stamps(point.facts)
    stop = _Stop()
    try:
        with reporter, _watching(job, point, stop):
            result = job.repository.create(
                job.unfinished_archive,
                _paths(job, point),
                comment=render_comment(_comment(job, point)),
                read_special=_has_block_device(point),
                files_cache_suffix=job.uuid,
                on_progress=lambda progress: reporter.report(progress.original_size, progress.path),
                stop=stop.event,
            )
            if not result.stopped:
                reporter.finish()
        if stop.error is not None:
            raise stop.error
        _require_unmoved(stamps, image_stamps(point.facts))
    except VmborgError as error:
        if stop.error is not None and error is not stop.error:
            raise stop.error from error
        raise
    return result


def _paths(job: BackupJob, point: FrozenPoint) -> list[str]:
    images = dict.fromkeys(image.content_path for disk in point.facts.covered for image in disk.chain)
    return [*images, f"{job.staging}/./{ARCHIVE_DIR}"]


def _has_block_device(point: FrozenPoint) -> bool:
    return any(image.kind is ImageKind.BLOCK for disk in point.facts.covered for image in disk.chain)


def _comment(job: BackupJob, point: FrozenPoint) -> dict[str, str]:
    return {
        "v": "1",
        "vm": job.name,
        "uuid": job.uuid,
        "host": job.config.hypervisor.name,
        "time": job.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "consistency": point.freeze.consistency,
        "frozen_ms": str(point.freeze.frozen_ms),
        "disks": ",".join(f"{disk.target}:{disk.base.virtual_size}" for disk in point.facts.covered),
        "uncovered": ",".join(disk.target for disk in point.facts.uncovered),
        "layout": "image",
        **({"dumps": " ".join(job.dumps)} if job.dumps else {}),
    }


@contextmanager
def _watching(job: BackupJob, point: FrozenPoint, stop: _Stop) -> Generator[None]:
    """Live: guard the overlays' space and the window's deadline. Shut off: look whether somebody starts the domain."""
    if point.overlays:
        guard = OverlayGuard(
            point.overlays,
            min_free=job.policy.min_free,
            deadline=job.policy.create_deadline,
            on_stop=lambda reason: stop(_window_exceeded(reason)),
        )
        with guard:
            yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch_start, args=(job, stop, done), name="watch-start", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    if _is_active(job):
        stop(_started(job))


def _watch_start(job: BackupJob, stop: _Stop, done: threading.Event) -> None:
    while not done.wait(_WATCH_INTERVAL_S):
        try:
            if _is_active(job):
                stop(_started(job))
                return
        except VmborgError as error:
            stop(error)
            return


def _is_active(job: BackupJob) -> bool:
    return job.domain.state() is not DomainState.SHUT_OFF


def _started(job: BackupJob) -> DomainStateChanged:
    return DomainStateChanged(
        f"The VM {job.name!r} was started while its shut-off images were read; that archive is discarded.",
        evidence="libvirt says the domain is active",
        remedy="None needed: the backup goes on the live way.",
    )


def _window_exceeded(reason: str) -> WindowExceeded:
    return WindowExceeded(
        "The copy was ended early so that the guest does not meet a full disk.",
        evidence=reason,
        remedy="Give the overlays' file system more room, raise create_deadline, or back up when it writes less.",
    )


def _require_unmoved(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    moved = sorted(path for path, stamp in before.items() if after[path] != stamp)
    if moved:
        raise ArchiveIncomplete(
            "An image that should have stood still was written to while it was read.",
            evidence="\n".join(moved),
            remedy="Look for another program that writes to it; the archive was deleted.",
        )


def drop_unfinished(job: BackupJob) -> None:
    """Delete this run's unfinished archive if borg kept one; a repository that does not answer soon is only logged.

    The next preflight tries again.
    """
    try:
        job.repository.delete([job.unfinished_archive], lock_wait=DROP_LOCK_WAIT_S, timeout=DROP_TIMEOUT_S)
    except ArchiveNotFound:
        return
    except VmborgError as error:
        logger.warning("the unfinished archive %s could not be deleted: %s", job.unfinished_archive, error.brief)


@step("verify", retries=True)
def verify_archive(job: BackupJob, point: FrozenPoint, created: CreateResult) -> ArchiveFigures:
    """Compare what borg stored with the manifest, then give the archive its final name.

    Raises ArchiveIncomplete (the archive is deleted), and borg's typed errors.
    """
    name, items = _stored(job)
    wrong: list[str] = []
    for path, expected in expected_items(point.manifest).items():
        if path not in items:
            wrong.append(f"{path}: not in the archive")
        elif expected is not None and items[path].size != expected:
            wrong.append(f"{path}: {items[path].size} bytes stored, {expected} expected")
    if wrong:
        drop_unfinished(job)
        raise ArchiveIncomplete(
            "What borg stored is not what the manifest promises; the archive was deleted.",
            evidence="\n".join(wrong),
            remedy="Run the backup again; if it happens twice, look at the storage of these images.",
        )
    if name != job.archive:
        job.repository.rename(name, job.archive, lock_wait=VERIFY_LOCK_WAIT_S)
    return ArchiveFigures(
        archive=job.archive,
        disks=tuple(_figures(disk, created, items) for disk in point.manifest.disks if disk.chain),
        original=created.original_size,
        stored=created.deduplicated_size,
        seconds=created.seconds,
    )


def _stored(job: BackupJob) -> tuple[str, dict[str, ArchiveItem]]:
    """The archive's name and items. A connection that broke while it was renamed does not tell whether it was."""
    name = job.unfinished_archive
    try:
        items = job.repository.items(name, unique=True, lock_wait=VERIFY_LOCK_WAIT_S)
    except ArchiveNotFound:
        name = job.archive
        items = job.repository.items(name, unique=True, lock_wait=VERIFY_LOCK_WAIT_S)
    return name, {item.path: item for item in items}
