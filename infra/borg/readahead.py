"""Reading files ahead of borg, so that it waits for storage less: images for a create, segments for an extract.

borg is one thread: it reads 4 MiB, hashes, compresses, writes, reads again, and the storage idles meanwhile. The kernel
alone reads ahead too little to change that. Telling it early what comes next (posix_fadvise(2), WILLNEED) made a
sequential read of a virtual disk three times as fast: docs/performance.md. borg itself drops from the page cache what
it has read of an image.
"""

import errno
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

WINDOW = 64 * 1024**2
"""Bytes that are read ahead at most. It begins with one step and doubles while the reading goes on in sequence, so
that little is fetched for nothing where an extract jumps from segment to segment."""

_STEP = 4 * 1024**2
_INTERVAL_S = 0.01


class ReadAhead:
    """Has files read ahead of where the process `pid` is in them. A context manager.

    `paths` are files, or directories for whatever lies below them. What it cannot do it leaves: borg reads everything
    itself in any case.
    """

    def __init__(self, pid: int, paths: Collection[str]) -> None:
        self._process = Path(f"/proc/{pid}")
        resolved = [path.resolve() for path in map(Path, paths)]
        self._files = {str(path) for path in resolved if not path.is_dir()}
        self._folders = tuple(f"{path}/" for path in resolved if path.is_dir())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="read-ahead", daemon=True)
        self._seen: dict[str, tuple[str, int]] = {}  # path and position by descriptor
        self._descriptor = ""  # the one it was last seen to read from
        self._file = -1
        self._path = ""
        self._position = self._ahead = self._window = 0

    def __enter__(self) -> Self:
        if self._files or self._folders:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(_INTERVAL_S):
            with suppress(OSError):  # it closed a file or ended between two looks
                self._look()
        self._close()

    def _look(self) -> None:
        moved = next((each for each in self._descriptors() if self._moved(each)), "")
        if moved:
            self._descriptor = moved
            self._advise(*self._seen[moved])

    def _descriptors(self) -> Iterator[str]:
        if self._descriptor:
            yield self._descriptor
        yield from (entry.name for entry in (self._process / "fd").iterdir())

    def _moved(self, descriptor: str) -> bool:
        """Whether the process has one of the files open by this descriptor, and went on in it since the last look."""
        before = self._seen.pop(descriptor, None)
        try:
            path = str((self._process / "fd" / descriptor).readlink())
            if path not in self._files and not path.startswith(self._folders):
                return False
            position = int((self._process / "fdinfo" / descriptor).read_text("ascii").split(maxsplit=2)[1])
        except FileNotFoundError:
            return False
        self._seen[descriptor] = path, position
        return position > 0 and self._seen[descriptor] != before

    def _open(self, path: str) -> None:
        self._close()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._path, self._position, self._ahead, self._window = path, 0, 0, 0

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._path = -1, ""

    def _advise(self, path: str, position: int) -> None:
        if path != self._path:
            self._open(path)
        if self._position <= position <= self._ahead:
            self._window = min(max(2 * self._window, _STEP), WINDOW)
        else:
            self._window, self._ahead = _STEP, position
        self._position, self._ahead = position, max(position, self._ahead)
        end = position + self._window
        while (start := self._next_data(self._ahead)) < end:
            os.posix_fadvise(self._file, start, _STEP, os.POSIX_FADV_WILLNEED)
            self._ahead = start + _STEP

    def _next_data(self, offset: int) -> int:
        """Where the next byte is that is no hole; borg skips holes too (lseek(2), SEEK_DATA)."""
        try:
            return os.lseek(self._file, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # behind the last one
                return offset + 2 * WINDOW
            return offset if offset < os.lseek(self._file, 0, os.SEEK_END) else offset + 2 * WINDOW  # a device
