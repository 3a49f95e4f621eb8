"""Segments brought into memory a moment before borg asks for them, and what was seen of each."""

import zlib
from array import array
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import mmap

from infra.qcow2.file import page_buffer
from infra.qcow2.image import Qcow2Image

_KEPT_BYTES = 64 * 1024**2
_AHEAD_BYTES = 44 * 1024**2
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Source:
    """A disk to read from. Bytes."""

    image: Qcow2Image
    segment: int
    wanted: frozenset[int] | None  # segments that are going to be read, as far as known; None: all
    seen: "array[int]" = field(compare=False)  # a CRC-32 of what was read of each segment, UNKNOWN of the others

    @property
    def count(self) -> int:
        """How many segments there are."""
        return len(self.seen)

    def length(self, number: int) -> int:
        """Bytes of a segment."""
        return min(self.segment, self.image.size - number * self.segment)

    def load(self, number: int, buffer: mmap) -> memoryview | None:
        """Read a segment into a buffer of its size; None for zeros. Raises OSError."""
        content = memoryview(buffer)[: self.length(number)]
        some = self.image.read_into(content, number * self.segment)
        self.seen[number] = zlib.crc32(content) if some else _crc_of_zeros(len(content))
        return content if some else None


_zeros: dict[int, int] = {}


def _crc_of_zeros(length: int) -> int:
    if length not in _zeros:
        _zeros[length] = zlib.crc32(bytes(length))
    return _zeros[length]


class Loader:
    """Reads whole segments, the next ones in the background. What was read last is kept for a while.

    Buffers are used again: memory that is always new costs as much as the reading.
    """

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self._sources = sources
        self._size = max((source.segment for source in sources), default=1)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="load")
        self._loaded: OrderedDict[tuple[int, int], tuple[Future[memoryview | None], mmap]] = OrderedDict()
        self._last = (-1, -1)  # what was asked for last
        self.read_bytes = 0

    def content(self, disk: int, number: int) -> memoryview | None:
        """A segment's bytes, valid until the next call; None for zeros. Raises OSError."""
        known = self._loaded.get((disk, number))
        if known is None:
            known = self._begin(disk, number)
        if (disk, number) != self._last:
            self._last = disk, number
            self._read_ahead(disk, number)
        return known[0].result()

    def _read_ahead(self, disk: int, number: int) -> None:
        source = self._sources[disk]
        ahead = max(1, _AHEAD_BYTES // source.segment)
        for following in range(number + 1, min(number + 1 + ahead, source.count)):
            wanted = source.wanted is None or following in source.wanted
            if wanted and (disk, following) not in self._loaded:
                self._begin(disk, following)

    def _begin(self, disk: int, number: int) -> "tuple[Future[memoryview | None], mmap]":
        source = self._sources[disk]
        buffer = self._buffer()
        self._loaded[disk, number] = known = self._pool.submit(source.load, number, buffer), buffer
        self.read_bytes += source.length(number)
        return known

    def _buffer(self) -> mmap:
        """That of what was read longest ago, when there are enough."""
        if len(self._loaded) < max(3, _KEPT_BYTES // self._size):
            return page_buffer(self._size)
        _, (future, buffer) = self._loaded.popitem(last=False)
        with suppress(OSError):  # it was told to whoever asked for it
            future.result()
        return buffer

    def close(self) -> None:
        """Wait for what is being read."""
        self._pool.shutdown(cancel_futures=True)
