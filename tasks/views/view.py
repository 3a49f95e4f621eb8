"""Opening and closing a view: borg's mount, and above it the disks that are stored as segments.

    PLACE/archive/…          the archive, as borg shows it
    PLACE/disks/vda          a disk of segments, as one raw file

Everything is in the journal before it is made, and `close_view` takes away whatever of it is there.
"""

import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from infra.borg.client import Repository
from infra.borg.mount import mount_archive
from infra.errors import StorageError
from infra.journal.views import OpenView, ViewJournal
from infra.manifest import Manifest, ManifestDisk
from infra.model import Layout
from infra.process import run
from infra.segments.joined import JoinedDisk, joined_disks

PLACES = Path("/run/vmborg")
"""Mounts are made below it: it is empty after a reboot, as are the mounts."""

_ARCHIVE, _DISKS = "archive", "disks"
_UMOUNT_S = 60.0

logger = logging.getLogger("vmborg.views")


@dataclass(frozen=True, slots=True)
class ViewImage:
    """One image of a disk, as a file that can be read."""

    path: str
    format: str


@dataclass(frozen=True, slots=True)
class ViewDisk:
    """A disk of the archive: the image that the guest wrote to, then what it lies on."""

    target: str
    size: int  # bytes the guest sees
    chain: tuple[ViewImage, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What is mounted."""

    entry: OpenView
    disks: tuple[ViewDisk, ...]

    @property
    def paths(self) -> frozenset[str]:
        """Every image's path."""
        return frozenset(image.path for disk in self.disks for image in disk.chain)


def view_disks(place: str, manifest: Manifest) -> tuple[ViewDisk, ...]:
    """Where the disks of an archive are when it is shown at `place`."""
    return tuple(ViewDisk(disk.target, disk.virtual_size, _chain(place, disk)) for disk in manifest.disks if disk.chain)


def _chain(place: str, disk: ManifestDisk) -> tuple[ViewImage, ...]:
    if disk.layout is Layout.SEGMENTS:
        return (ViewImage(f"{place}/{_DISKS}/{disk.target}", "raw"),)
    return tuple(ViewImage(f"{place}/{_ARCHIVE}/{image.archive_path}", image.format) for image in disk.chain)


def open_view(
    repository: Repository,
    manifest: Manifest,
    entry: OpenView,
    journal: ViewJournal,
    *,
    owner: tuple[int, int] = (0, 0),
    lock: bool = False,
) -> View:
    """Mount the archive that `entry` names, readable for `owner` (user, group) and root.

    It is in the journal first; whoever opens it closes it with `close_view`, also when this fails. Raises
    JournalError, StorageError and borg's typed errors.
    """
    journal.write(entry)
    place, logs = Path(entry.place), journal.directory
    archive = place / _ARCHIVE
    if not os.path.ismount(archive):
        show_archive(repository, entry, journal, owner=owner, lock=lock)
    segments = [
        JoinedDisk(disk.target, f"{archive}/{disk.archive_path}", disk.virtual_size, disk.segment)
        for disk in manifest.disks
        if disk.chain and disk.layout is Layout.SEGMENTS
    ]
    if segments:
        _make(place / _DISKS, 0o700)
        joined_disks(place / _DISKS, segments, owner=owner, log=logs / f"{entry.number}.disks.log")
    return View(entry, view_disks(entry.place, manifest))


def show_archive(
    repository: Repository, entry: OpenView, journal: ViewJournal, *, owner: tuple[int, int], lock: bool = False
) -> None:
    """The first part of `open_view`: borg's mount alone. The entry is in the journal. Raises as `open_view`."""
    place = Path(entry.place)
    for directory, mode in ((place.parent, 0o711), (place, 0o711), (place / _ARCHIVE, 0o700)):
        _make(directory, mode)
    log = journal.directory / f"{entry.number}.borg.log"
    mount_archive(repository, entry.archive, place / _ARCHIVE, owner=owner, log=log, lock=lock)


def _make(directory: Path, mode: int) -> None:
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        directory.chmod(mode)
    except OSError as error:
        raise StorageError(
            f"The folder {directory} cannot be made.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Views of archives are mounted there; run vmborg as root.",
        ) from error


def is_alive(view: OpenView) -> bool:
    """Whether its mounts are there and answer."""
    mounts = [Path(view.place, name) for name in (_ARCHIVE, _DISKS) if Path(view.place, name).exists()]
    mounts += [Path(view.mounted)] if view.mounted else []
    return Path(view.place, _ARCHIVE) in mounts and all(_answers(each) for each in mounts)


def _answers(mount: Path) -> bool:
    try:
        os.statvfs(mount)  # the server is asked each time; a listing may come from the kernel's memory
    except OSError:
        return False
    return str(mount) in _mounts()


def _mounts() -> set[str]:
    """Where something is mounted (proc(5), mounts)."""
    lines = Path("/proc/self/mounts").read_text("utf-8", "surrogateescape").splitlines()
    return {os.fsdecode(os.fsencode(line.split()[1]).decode("unicode_escape").encode("latin-1")) for line in lines}


def unmount(directory: Path) -> bool:
    """Take a mount away, also one that is dead or in use; whether there was one. Raises ProcessError."""
    found = False
    while str(directory) in _mounts():
        found = True
        done = run(["umount", str(directory)], timeout=_UMOUNT_S, check=False)
        if done.returncode != 0:
            run(["umount", "--lazy", str(directory)], timeout=_UMOUNT_S)
    return found


def unmount_view(view: OpenView) -> list[str]:
    """Take its mounts away, the upper ones first; what was done. Raises ProcessError."""
    mounts = filter(None, (view.mounted, f"{view.place}/{_DISKS}", f"{view.place}/{_ARCHIVE}"))
    done = [f"unmounted {each}" for each in mounts if unmount(Path(each))]
    for each in (f"{view.place}/{_DISKS}", f"{view.place}/{_ARCHIVE}", view.place):
        with suppress(FileNotFoundError):
            Path(each).rmdir()
    return done


def close_view(view: OpenView, journal: ViewJournal) -> list[str]:
    """Take away everything that it has made; what was done. Safe to call again. Raises ProcessError, JournalError."""
    done = unmount_view(view)
    work = work_folder(view, journal)
    if work.exists():
        shutil.rmtree(work, ignore_errors=True)
    for log in journal.directory.glob(f"{view.number}.*.log"):
        log.unlink(missing_ok=True)
    journal.close(view.number)
    return done


def work_folder(view: OpenView, journal: ViewJournal) -> Path:
    """A private folder of its own: the archive's metadata, the appliance's files."""
    return journal.directory / f"{view.number}.work"


def update(view: OpenView, journal: ViewJournal, **changes: object) -> OpenView:
    """The entry with these changes, in the journal too. Raises JournalError."""
    changed = replace(view, **changes)
    journal.write(changed)
    return changed
