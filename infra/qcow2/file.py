"""An image's file: past the page cache where that is possible."""

import errno
import mmap
import os

_ALIGNED = mmap.PAGESIZE
_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP}


def page_buffer(size: int) -> mmap.mmap:
    """Memory from a page's beginning on, as direct I/O wants it."""
    return mmap.mmap(-1, size)


class ImageFile:
    """A file that nobody writes to, opened for reading; threads may read at the same time. Raises OSError.

    What is large is read with direct I/O: a backup reads it once, and copying it through the page cache cost as much
    time of a processor as all the rest of the serving (docs/performance.md). open(2): not every file system knows
    O_DIRECT, and one may refuse a place that is no multiple of its block; that is read through the page cache.
    """

    def __init__(self, path: str) -> None:
        self._cached = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._direct = -1
        try:
            self._direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            if error.errno not in _REFUSED:
                os.close(self._cached)
                raise

    def close(self) -> None:
        """Close it."""
        os.close(self._cached)
        if self._direct >= 0:
            os.close(self._direct)

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes through the page cache; fewer at the end of the file."""
        return os.pread(self._cached, length, offset)

    def fill(self, target: memoryview, offset: int) -> None:
        """Fill `target`, best a part of a `page_buffer`; what is behind the end is zeros."""
        aligned = offset % _ALIGNED == len(target) % _ALIGNED == 0
        if self._direct < 0 or not aligned or not self._filled_directly(target, offset):
            _fill(self._cached, target, offset)
            # As borg does with what it reads: a backup is read once, and what the host's cache held stays useful.
            os.posix_fadvise(self._cached, offset, len(target), os.POSIX_FADV_DONTNEED)

    def _filled_directly(self, target: memoryview, offset: int) -> bool:
        try:
            _fill(self._direct, target, offset)
        except OSError as error:
            if error.errno in _REFUSED:
                return False
            raise
        return True


def _fill(file: int, target: memoryview, offset: int) -> None:
    done = 0
    while done < len(target):
        got = os.preadv(file, [target[done:]], offset + done)
        if not got:  # behind the end of the file
            target[done:] = bytes(len(target) - done)
            return
        done += got
