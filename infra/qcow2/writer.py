"""A new qcow2 image, written in one pass from the disk's beginning to its end; zeros take no room."""

import struct
import sys
from array import array
from pathlib import Path
from types import TracebackType
from typing import Self

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_CLUSTER_BITS = 16  # qemu's own choice
_CLUSTER = 1 << _CLUSTER_BITS
_PER_TABLE = _CLUSTER // 8
_COPIED = 1 << 63
_REFCOUNTS_PER_BLOCK = _CLUSTER // 2
_ZEROS = bytes(_CLUSTER)


class Qcow2Writer:
    """Write `size` bytes with `write`, then `finish`. A context manager, which only closes the file.

    Raises FileExistsError for a file that is there, and OSError.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._file = path.open("xb", buffering=0)
        self._size = size
        tables = -(-size // (_CLUSTER * _PER_TABLE))
        self._l1: array[int] = array("Q", bytes(8 * tables))
        self._l2: array[int] = array("Q", bytes(_CLUSTER))
        self._next = _CLUSTER * (1 + -(-8 * max(1, tables) // _CLUSTER))  # behind the header and the L1 table
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, content: memoryview) -> None:
        """The next bytes of the disk: whole clusters of 64 KiB, except at its end."""
        start = None
        for place in range(0, len(content), _CLUSTER):
            piece = content[place : place + _CLUSTER]
            if bytes(piece) == _ZEROS[: len(piece)]:
                start = self._flush(content, start, place)
            else:
                start = place if start is None else start
                self._l2[self._done // _CLUSTER % _PER_TABLE] = self._next + place - start | _COPIED
            self._done += len(piece)
            if self._done % (_CLUSTER * _PER_TABLE) == 0:
                start = self._flush(content, start, place + len(piece))
                self._end_table()
        self._flush(content, start, len(content))

    def _flush(self, content: memoryview, start: int | None, end: int) -> None:
        """Write what was found since `start` that is no zeros."""
        if start is not None:
            self._put(self._next, content[start:end])
            self._next += -(-(end - start) // _CLUSTER) * _CLUSTER

    def _end_table(self) -> None:
        if any(self._l2):
            self._put(self._next, _big_endian(self._l2))
            self._l1[(self._done - 1) // (_CLUSTER * _PER_TABLE)] = self._next | _COPIED
            self._next += _CLUSTER
            self._l2 = array("Q", bytes(_CLUSTER))

    def finish(self) -> None:
        """Write the tables. Raises ValueError when another number of bytes than `size` was written."""
        if self._done != self._size:
            raise ValueError(f"{self._done} bytes were written of {self._size}")
        if self._done % (_CLUSTER * _PER_TABLE):
            self._end_table()
        self._put(_CLUSTER, _big_endian(self._l1))
        table, clusters = self._refcounts()
        header = (b"QFI\xfb", 3, 0, 0, _CLUSTER_BITS, self._size, 0, len(self._l1), _CLUSTER, table, clusters)
        self._put(0, _HEADER.pack(*header, 0, 0, 0, 0, 0, 4, _HEADER.size))
        self._file.truncate(self._next)

    def _refcounts(self) -> tuple[int, int]:
        """Every cluster is used once, those of the counts among them. Where their table is, and its clusters."""
        used = self._next // _CLUSTER
        blocks = tables = 0
        while True:
            total = used + blocks + tables
            wanted = -(-total // _REFCOUNTS_PER_BLOCK)
            if (wanted, -(-wanted // _PER_TABLE)) == (blocks, tables):
                break
            blocks, tables = wanted, -(-wanted // _PER_TABLE)
        first = self._next
        for number in range(blocks):
            count = min(_REFCOUNTS_PER_BLOCK, total - number * _REFCOUNTS_PER_BLOCK)
            self._put(first + number * _CLUSTER, b"\0\1" * count)
        table = first + blocks * _CLUSTER
        self._put(table, _big_endian(array("Q", range(first, table, _CLUSTER))))
        self._next = table + tables * _CLUSTER
        return table, tables

    def _put(self, offset: int, content: bytes | memoryview) -> None:
        self._file.seek(offset)
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]


def _big_endian(numbers: "array[int]") -> bytes:
    swapped = array("Q", numbers)
    if sys.byteorder == "little":
        swapped.byteswap()
    return swapped.tobytes()
