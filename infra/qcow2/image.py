"""An image's content without qemu, straight from where its tables say it is.

qemu-nbd would do, at a third of the speed and with a process more; `qemu-img map` lists what is where in text, which
takes hundreds of megabytes for a large image that is fragmented (docs/adr/0018).
"""

import errno
import struct
import sys
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from infra.errors import DiskMissing, ImageError
from infra.qcow2 import bitmaps
from infra.qcow2.bitmaps import BitmapEntry
from infra.qcow2.facts import HEAD, Facts, parse_facts
from infra.qcow2.file import ImageFile, page_buffer

_OFFSET_MASK = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_ZERO = 1
_SECTOR = 512
_TABLES_KEPT = 64
_DEFLATE_WINDOW = -12  # qemu, block/qcow2-threads.c


class Qcow2Image:
    """An image that nobody writes to, opened for reading. A context manager; threads may read at the same time.

    Raises DiskMissing; ImageError when its content cannot be found without qemu, the reason in the evidence.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = ImageFile(path)
        except OSError as error:
            raise DiskMissing(f"The image {path} cannot be read.", evidence=f"{path}: {error.strerror}") from error
        try:
            self.facts: Facts = parse_facts(self._file.read(0, HEAD))
            self._l1 = _numbers(self.read_raw(self.facts.l1_offset, 8 * self.facts.l1_entries))
        except (OSError, ValueError, struct.error) as error:
            self._file.close()
            raise ImageError(f"{path} is not read by its tables.", evidence=str(error)) from error
        self._tables: OrderedDict[int, bytes] = OrderedDict()
        self._compressed_bits = 62 - (self.facts.cluster.bit_length() - 1 - 8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes that the guest sees."""
        return self.facts.size

    def read_raw(self, offset: int, length: int) -> bytes:
        """Bytes of the file itself; what is behind its end is zeros, as for qemu."""
        return self._file.read(offset, length).ljust(length, b"\0")

    # -------------------------------------------------------------------------------------------------- tables

    def _table(self, number: int) -> bytes:
        """An L2 table, as it is in the file; empty when there is none."""
        offset = self._l1[number] & _OFFSET_MASK if number < len(self._l1) else 0
        if not offset:
            return b""
        table = self._tables.get(number)
        if table is None:
            table = self.read_raw(offset, self.facts.cluster)
            self._tables[number] = table
            while len(self._tables) > _TABLES_KEPT:
                with suppress(KeyError):  # another thread was quicker
                    self._tables.popitem(last=False)
        return table

    def entries(self, first: int, count: int) -> bytes:
        """The table entries of so many clusters, 8 bytes each as in the file; empty when none is allocated."""
        per_table = self.facts.cluster // 8
        parts: list[bytes] = []
        some = False
        while count > 0:
            number, index = divmod(first, per_table)
            taken = min(count, per_table - index)
            table = self._table(number)
            some = some or bool(table)
            parts.append(table[8 * index : 8 * (index + taken)] if table else bytes(8 * taken))
            first, count = first + taken, count - taken
        joined = parts[0] if len(parts) == 1 else b"".join(parts)
        return joined if some and joined.strip(b"\0") else b""

    def fingerprints(self, segment: int) -> "array[int]":
        """For each segment of so many bytes a checksum of its table entries: where its content is, and what is zeros.

        They change where content changed without a dirty bit, because tables were rewritten: a disk that was shrunk and
        has grown again.
        """
        clusters, count = segment // self.facts.cluster, -(-self.size // segment)
        return array("I", (zlib.crc32(self.entries(number * clusters, clusters)) for number in range(count)))

    def is_hole(self, offset: int, length: int) -> bool:
        """Whether nothing but zeros can be there, from the tables alone."""
        cluster = self.facts.cluster
        entries = self.entries(offset // cluster, -(-length // cluster))
        return not entries or all(_is_zero(entry) for entry in _numbers(entries))

    # ------------------------------------------------------------------------------------------------- content

    def read_into(self, content: memoryview, offset: int) -> bool:
        """Fill `content`, best a `page_buffer`, with what the guest would read there, from a cluster's beginning on.

        False for nothing but zeros; `content` is left as it is then. Raises OSError.
        """
        length, done = len(content), 0
        entries = self.entries(offset // self.facts.cluster, -(-length // self.facts.cluster))
        for start, host, size in self._runs(_numbers(entries), length) if entries else ():
            if start > done:
                content[done:start] = bytes(start - done)
            if size:
                self._file.fill(content[start : start + size], host)
                done = start + size
            else:
                done = min(start + self.facts.cluster, length)
                content[start:done] = self._inflate(host)[: done - start]
        if 0 < done < length:
            content[done:] = bytes(length - done)
        return done > 0

    def read(self, offset: int, length: int) -> bytes:
        """What the guest would read there, from a cluster's beginning on. Raises OSError."""
        content = page_buffer(length)
        return content[:] if self.read_into(memoryview(content), offset) else bytes(length)

    def _runs(self, entries: "array[int]", length: int) -> Iterator[tuple[int, int, int]]:
        """(place in the content, offset in the file, length) of what is no zeros; length 0: the entry of a cluster."""
        cluster = self.facts.cluster
        start = host = size = 0
        for index, entry in enumerate(entries):
            if not entry & _COMPRESSED:
                place = 0 if _is_zero(entry) else entry & _OFFSET_MASK
                if size and place == host + size:
                    size += cluster
                    continue
            if size:
                yield start, host, min(size, length - start)
                size = 0
            if entry & _COMPRESSED:
                yield index * cluster, entry, 0
            elif not _is_zero(entry):
                start, host, size = index * cluster, entry & _OFFSET_MASK, cluster
        if size:
            yield start, host, min(size, length - start)

    def _inflate(self, entry: int) -> bytes:
        if self.facts.zstd:
            raise OSError(errno.EOPNOTSUPP, "clusters compressed with zstd are read by qemu only", self.path)
        entry &= _COMPRESSED - 1
        host = entry & ((1 << self._compressed_bits) - 1)
        sectors = (entry >> self._compressed_bits) + 1
        packed = self._file.read(host, sectors * _SECTOR - host % _SECTOR)
        try:
            content = zlib.decompressobj(_DEFLATE_WINDOW).decompress(packed, self.facts.cluster)
        except zlib.error as error:
            raise OSError(errno.EIO, f"a compressed cluster is damaged ({error})", self.path) from error
        return content.ljust(self.facts.cluster, b"\0")

    # ------------------------------------------------------------------------------------------------- bitmaps

    def bitmap(self, name: str) -> BitmapEntry | None:
        """The bitmap of this name; None when there is none. Raises ImageError."""
        return next((entry for entry in self.bitmaps() if entry.name == name), None)

    def bitmaps(self) -> tuple[BitmapEntry, ...]:
        """All bitmaps that are stored in the image. Raises ImageError."""
        if self.facts.directory is None:
            return ()
        count, size, offset = self.facts.directory
        try:
            return tuple(bitmaps.parse_directory(self.read_raw(offset, size), count))
        except (OSError, ValueError) as error:
            raise ImageError(f"The bitmaps of {self.path} cannot be read.", evidence=str(error)) from error

    def bits(self, entry: BitmapEntry) -> bytes:
        """The bits of a bitmap. Raises ImageError."""
        try:
            return bitmaps.load(entry, cluster=self.facts.cluster, size=self.size, read=self.read_raw)
        except (OSError, ValueError) as error:
            raise ImageError(f"A bitmap of {self.path} cannot be read.", evidence=str(error)) from error


def _is_zero(entry: int) -> bool:
    return not entry & _COMPRESSED and (bool(entry & _ZERO) or not entry & _OFFSET_MASK)


def _numbers(raw: bytes) -> "array[int]":
    numbers = array("Q", raw)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
