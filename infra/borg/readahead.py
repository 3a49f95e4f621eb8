"""Reading images ahead of borg, so that it waits for storage less.

borg is one thread: it reads 4 MiB, hashes, compresses, writes, reads again, and the storage idles meanwhile. The kernel
alone reads ahead too little to change that. Telling it early what comes next (posix_fadvise(2), WILLNEED) made a
sequential read of a virtual disk three times as fast: docs/performance.md. borg itself drops from the page cache what
it has read.
"""

import errno
import os
import threading
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

WINDOW = 64 * 1024**2
"""Bytes that are read ahead."""

_STEP = 4 * 1024**2
_INTERVAL_S = 0.01


class ReadAhead:
    """Has what `paths` hold read ahead of where the process `pid` is in them. A context manager.

    What it cannot do it leaves: borg reads everything itself in any case.
    """

    def __init__(self, pid: int, paths: Collection[str]) -> None:
        self._process = Path(f"/proc/{pid}")
        self._paths = {str(path.resolve()) for path in map(Path, paths) if not path.is_dir()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="read-ahead", daemon=True)
        self._file = -1
        self._path = ""
        self._ahead = 0

    def __enter__(self) -> Self:
        if self._paths:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        descriptor = ""
        while not self._over.wait(_INTERVAL_S):
            try:
                if not self._reads(descriptor):
                    descriptor = self._find()
                if descriptor:
                    self._advise(self._position(descriptor))
            except OSError:  # it closed the file or ended between two looks
                descriptor = ""
        self._close()

    def _find(self) -> str:
        """The descriptor by which the process has one of the files open; "" without one."""
        for entry in (self._process / "fd").iterdir():
            path = str(entry.readlink())
            if path in self._paths:
                self._open(path)
                return entry.name
        return ""

    def _reads(self, descriptor: str) -> bool:
        return bool(descriptor) and str((self._process / "fd" / descriptor).readlink()) == self._path

    def _position(self, descriptor: str) -> int:
        return int((self._process / "fdinfo" / descriptor).read_text("ascii").split(maxsplit=2)[1])

    def _open(self, path: str) -> None:
        self._close()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._path, self._ahead = path, 0

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _advise(self, position: int) -> None:
        end = position + WINDOW
        self._ahead = max(position, self._ahead) if self._ahead <= end else position
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
