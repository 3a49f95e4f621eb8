"""Steps that act on the repository: create the archive from the frozen bases, verify what borg stored."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from infra.borg.client import ArchiveItem, CreateResult, Repository
from infra.borg.comment import render_comment
from infra.borg.messages import ArchiveProgress
from infra.errors import ArchiveIncomplete, ArchiveNotFound, VmborgError
from infra.manifest import ARCHIVE_DIR, ManifestDisk, expected_items, segment_sizes
from infra.model import ImageKind, Layout
from tasks.destinations import ArchiveFigures, Destination, Destinations, DiskFigures, require_one
from tasks.domains import FrozenPoint, image_stamps
from tasks.job import BackupJob
from tasks.policy import step, vm_key
from tasks.progress import ProgressReporter
from tasks.recovery import drop_archive
from tasks.units import size
from tasks.window import Stop, watching

logger = logging.getLogger("vmborg.backup")

VERIFY_LOCK_WAIT_S = 4 * 3600
"""Another host's first backup may hold the repository so long; the guest is back, and the archive is worth waiting."""
_UNCHANGED = "U"


def _figures(disk: ManifestDisk, created: CreateResult, items: dict[str, ArchiveItem]) -> DiskFigures:
    if disk.layout is Layout.SEGMENTS:
        return _figures_of_segments(disk, created, items)
    read = [image for image in disk.chain if created.files.get(f"/{image.archive_path}") != _UNCHANGED]
    return DiskFigures(
        target=disk.target,
        size=disk.virtual_size,
        read=sum(image.allocated for image in read),
        stored=sum(items[image.archive_path].unique or 0 for image in disk.chain),
    )


def _figures_of_segments(disk: ManifestDisk, created: CreateResult, items: dict[str, ArchiveItem]) -> DiskFigures:
    paths = [f"{disk.archive_path}/{name}" for name in segment_sizes(disk.virtual_size, disk.segment)]
    read = {path.rpartition(f"/{disk.archive_path}/")[2] for path in created.files if f"/{disk.archive_path}/" in path}
    return DiskFigures(
        target=disk.target,
        size=disk.virtual_size,
        read=sum(items[path].size for path in paths if path.rpartition("/")[2] in read),
        stored=sum(items[path].unique or 0 for path in paths),
    )


@step("create")
def create_archive(job: BackupJob, point: FrozenPoint, destinations: Destinations) -> Destinations:
    """`borg create` of the frozen images, under an unfinished name, in each repository; what came of each destination.

    One repository after the other, all within one window: one that fails does not keep the next from being written.
    Raises the first error when no archive was made: WindowExceeded (space or deadline), ArchiveIncomplete (a warning
    touched an image, or an image moved under the copy), and borg's typed errors; DomainStateChanged (a shut-off domain
    was started) in any case. What borg kept then is dropped by `drop_unfinished`, once the guest is back.
    """
    sizes = [image.size for disk in point.reading.whole_disks for image in disk.chain]
    to_read = sum(sizes) + sum(disk.read_bytes for disk in point.reading.disks)
    sizes += [disk.size for disk in point.reading.disks]  # borg's progress counts what it need not read, too
    usable = [(each, each.repository) for each in destinations if each.repository and not each.error]
    key = vm_key("progress", job.name, job.uuid)
    reporter = ProgressReporter(source=job.name, key=key, total=sum(sizes) * len(usable))
    stamps = image_stamps(point.facts)
    written = {each.name: each for each in destinations}
    with reporter, watching(job, point) as window:
        window.stop.then(point.reading.abandon)  # a borg that waits for a mount could not be ended
        for number, (each, repository) in enumerate(usable):
            logger.info("reading %s of images into %s::%s", size(to_read), each.name, job.unfinished_archive)
            report = _from(reporter, number * sum(sizes))
            with window.share(each.name, left=len(usable) - number) as stop:
                written[each.name] = _create_one(job, point, each, repository, stop=stop, stamps=stamps, report=report)
        point.reading.finish(useful=any(each.created for each in written.values()))
        point.reading.stood_still = stamps == image_stamps(point.facts)
        if all(each.error is None for each in written.values()):
            reporter.finish()
    made = tuple(written.values())
    for each in made:
        if each.error is not None:
            logger.warning("no archive in the repository %s: %s", each.name, each.error.brief)
    if window.stop.error is not None and not point.overlays:  # it was started, or nobody knows: none is of one instant
        raise window.stop.error
    require_one(made)
    return made


def _from(reporter: ProgressReporter, offset: int) -> Callable[[ArchiveProgress], None]:
    return lambda progress: reporter.report(offset + progress.original_size, progress.path)


def _create_one(
    job: BackupJob,
    point: FrozenPoint,
    destination: Destination,
    repository: Repository,
    *,
    stop: Stop,
    stamps: Mapping[str, tuple[int, int]],
    report: Callable[[ArchiveProgress], None],
) -> Destination:
    try:
        if stop.error is not None:  # the window is over
            raise stop.error
        point.reading.require_live()
        created = repository.create(
            job.unfinished_archive,
            _paths(job, point),
            comment=render_comment(_comment(job, point)),
            read_special=_has_block_device(point),
            segments=point.reading.source,
            files_cache_suffix=job.uuid,
            on_progress=report,
            stop=stop.event,
        )
        if created.stopped and stop.error is not None:
            raise stop.error
        _require_unmoved(stamps, image_stamps(point.facts))
    except VmborgError as error:
        return destination.failed(stop.error or error)
    return replace(destination, created=created)


def _paths(job: BackupJob, point: FrozenPoint) -> list[str]:
    images = dict.fromkeys(image.content_path for disk in point.reading.whole_disks for image in disk.chain)
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
        "layout": ",".join(sorted({disk.layout for disk in point.manifest.disks if disk.chain})),
        **({"dumps": " ".join(job.dumps)} if job.dumps else {}),
    }


def _require_unmoved(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> None:
    moved = sorted(path for path, stamp in before.items() if after[path] != stamp)
    if moved:
        raise ArchiveIncomplete(
            "An image that should have stood still was written to while it was read.",
            evidence="\n".join(moved),
            remedy="Look for another program that writes to it; the archive was deleted.",
        )


def drop_unfinished(job: BackupJob, destinations: Iterable[Destination]) -> None:
    """Delete this run's unfinished archive wherever borg kept one; a repository that does not answer is only logged.

    The next preflight tries again.
    """
    for each in destinations:
        if each.repository is not None:
            drop_archive(each.repository, job.unfinished_archive)


@step("verify", retries=True)
def verify_archive(job: BackupJob, point: FrozenPoint, repository: Repository, created: CreateResult) -> ArchiveFigures:
    """Compare what borg stored in one repository with the manifest, then give the archive its final name.

    Raises ArchiveIncomplete (the archive is deleted), and borg's typed errors.
    """
    name, items = _stored(job, repository)
    wrong: list[str] = []
    for path, expected in expected_items(point.manifest).items():
        if path not in items:
            wrong.append(f"{path}: not in the archive")
        elif expected is not None and items[path].size != expected:
            wrong.append(f"{path}: {items[path].size} bytes stored, {expected} expected")
    if wrong:
        drop_archive(repository, job.unfinished_archive)
        raise ArchiveIncomplete(
            "What borg stored is not what the manifest promises; the archive was deleted.",
            evidence="\n".join(wrong),
            remedy="Run the backup again; if it happens twice, look at the storage of these images.",
        )
    if name != job.archive:
        repository.rename(name, job.archive, lock_wait=VERIFY_LOCK_WAIT_S)
    return ArchiveFigures(
        archive=job.archive,
        disks=tuple(_figures(disk, created, items) for disk in point.manifest.disks if disk.chain),
        original=created.original_size,
        stored=created.deduplicated_size,
        seconds=created.seconds,
        repository_size=created.repository_size,
    )


def _stored(job: BackupJob, repository: Repository) -> tuple[str, dict[str, ArchiveItem]]:
    """The archive's name and items. A connection that broke while it was renamed does not tell whether it was."""
    name = job.unfinished_archive
    try:
        items = repository.items(name, unique=True, lock_wait=VERIFY_LOCK_WAIT_S)
    except ArchiveNotFound:
        name = job.archive
        items = repository.items(name, unique=True, lock_wait=VERIFY_LOCK_WAIT_S)
    return name, {item.path: item for item in items}
