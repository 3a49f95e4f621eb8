"""Everything a restore makes on the host, with the way back: on any failure what was made is removed again.

Files are put together in a staging directory beside their target (same file system, so that moving them into place is
one rename) named `.vmborg-restore-…`. A killed restore leaves only that behind; the next one names it. A lock on the
directory tells one that is in use from a leftover.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.errors import NoSpace, StorageError, TargetExists

STAGING_PREFIX = ".vmborg-restore-"
OLD_MARK = ".vmborg-old-"

logger = logging.getLogger("vmborg.restore")


class Workspace:
    """A context manager; leaving it without `keep()` undoes everything, the last step first."""

    def __init__(self, stamp: str) -> None:
        self.stamp = stamp  # tells the images of this restore's predecessor from others
        self.aside: list[Path] = []  # what made way and can be deleted when all is well
        self._undo = ExitStack()
        self._closing = ExitStack()
        self._staging: dict[Path, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._undo.close()
        finally:
            self._closing.close()

    def keep(self) -> None:
        """All is well: what was made stays. Only staging directories are removed at the end."""
        self._undo.pop_all()

    def on_failure(self, undo: Callable[[], object], what: str) -> None:
        """Call `undo` if the restore fails; `what` is for the log when that fails too."""

        def attempt() -> None:
            try:
                undo()
            except Exception:
                logger.exception("After the failed restore, %s could not be undone.", what)

        self._undo.callback(attempt)

    def make_directory(self, directory: Path, *, mode: int = 0o711) -> None:
        """Make a directory and its parents. Raises StorageError."""
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        for each in reversed(missing):
            self.on_failure(lambda each=each: _remove_if_empty(each), f"making {each}")
            with _as_storage_error(f"{each} cannot be made."):
                each.mkdir(mode=mode, exist_ok=True)

    def staging(self, directory: Path) -> Path:
        """The staging directory beside what will be in `directory`. Raises StorageError."""
        if directory in self._staging:
            return self._staging[directory]
        self.make_directory(directory)
        with _as_storage_error(f"Nothing can be written to {directory}."):
            path = self._closing.enter_context(locked_directory(directory, prefix=STAGING_PREFIX))
        # Undone before the directories made for it are removed, which must be empty then.
        self.on_failure(lambda: shutil.rmtree(path, ignore_errors=True), f"making {path}")
        self._staging[directory] = path
        return path

    def move(self, source: Path, target: Path) -> None:
        """Put a staged file or directory into its place. Raises TargetExists, StorageError."""
        if os.path.lexists(target):
            raise TargetExists(
                f"{target} exists already; nothing was changed.",
                evidence="it was not there when the restore began",
                remedy="Move it away and try again.",
            )
        self.on_failure(lambda: _remove(target, unless=source), f"placing {target}")
        with _as_storage_error(f"{target} cannot be put into place."):
            source.rename(target)

    def set_aside(self, path: Path) -> None:
        """Rename what is there, so that it can come back. Raises StorageError."""
        old = path.with_name(f"{path.name}{OLD_MARK}{self.stamp}")
        self.on_failure(lambda: _put_back(old, path), f"renaming {path} to {old.name}")
        with _as_storage_error(f"{path} cannot be renamed."):
            path.rename(old)
        self.aside.append(old)


def _remove(target: Path, *, unless: Path) -> None:
    if os.path.lexists(unless):
        return  # it never came to the move
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _put_back(old: Path, path: Path) -> None:
    if os.path.lexists(old):
        old.rename(path)


class _as_storage_error:  # noqa: N801 - reads as the function it is used like
    """Turn an OSError of the block into a StorageError."""

    def __init__(self, brief: str) -> None:
        self._brief = brief

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StorageError(
                self._brief,
                evidence=str(error),
                remedy="Look at the file system's space and permissions (vmborg needs root), then try again.",
            ) from error


def remove_tree(path: Path) -> None:
    """Delete a file or a directory with all in it. Raises StorageError."""
    with _as_storage_error(f"{path} cannot be deleted."):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def leftovers(directories: Iterable[Path]) -> tuple[Path, ...]:
    """Staging directories that killed restores left behind; those of running ones are not among them."""
    found = {path for each in directories if each.is_dir() for path in each.glob(f"{STAGING_PREFIX}*")}
    return tuple(sorted(path for path in found if is_abandoned(path)))


def former_files(directories: Iterable[Path]) -> tuple[tuple[Path, Path], ...]:
    """What a restore set aside and nobody deleted, with the path that it had: kept on purpose, or by a kill."""
    found = {path for each in directories if each.is_dir() for path in each.glob(f"*{OLD_MARK}*")}
    return tuple(sorted((path, path.with_name(path.name.partition(OLD_MARK)[0])) for path in found))


@contextmanager
def locked_directory(parent: Path, *, prefix: str) -> Generator[Path]:
    """A new directory, gone after the block. Its lock tells it from what a killed process left. Raises OSError."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def is_abandoned(path: Path) -> bool:
    """Whether a directory is there and nobody holds its lock any more: the kernel takes it from whoever ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False  # gone meanwhile, or no directory of ours
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def require_space(needs: Iterable[tuple[Path, int]], *, reserve: int = 0, for_images: Iterable[Path] = ()) -> None:
    """Compare what will be written, bytes by directory, with the free space of each file system.

    Directories need not exist yet. On the file systems of `for_images`, `reserve` bytes are left free. Raises NoSpace
    naming every file system that is too small.
    """
    sums: dict[int, tuple[Path, int]] = {}
    for directory, size in needs:
        existing = _existing(directory)
        first, total = sums.get(existing.stat().st_dev, (existing, 0))
        sums[existing.stat().st_dev] = (first, total + size)
    reserved = {_existing(directory).stat().st_dev for directory in for_images}
    short: list[str] = []
    for device, (directory, size) in sums.items():
        status = os.statvfs(directory)
        free = status.f_bavail * status.f_frsize
        kept = reserve if device in reserved else 0
        if free < size + kept:
            leaving = f" and {kept} to be left free (min_free)" if kept else ""
            short.append(f"{directory}: {size} bytes needed{leaving}, {free} free, {size + kept - free} too few")
    if short:
        raise NoSpace(
            "There is not enough room for this restore; nothing was changed.",
            evidence="\n".join(short),
            remedy="Free space there, or restore to another place with --as NEWNAME --to DIR.",
        )


def _existing(directory: Path) -> Path:
    return next(each for each in (directory, *directory.parents) if each.exists())
