"""Dirty bitmaps that are stored in an image: what was written to since they were made. Pure.

libvirt calls the pair of a bitmap and its description a checkpoint; both have one name.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_ENTRY = struct.Struct(
    ">QIIBBHI"
)  # table's offset and entries, flags, type, granularity's bits, lengths of name and rest
_IN_USE = 1 << 0
_DIRTY_TRACKING = 1
_OFFSET_MASK = 0x00FFFFFFFFFFFE00
_ALL_ONES = 1

Read = Callable[[int, int], bytes]
"""Reads bytes of the image file: offset, length."""


@dataclass(frozen=True, slots=True)
class BitmapEntry:
    """A bitmap as the directory names it."""

    name: str
    table_offset: int
    table_entries: int
    in_use: bool  # the program that wrote to the image ended without storing it: what it says is not true
    granularity: int  # bytes of the disk that one bit stands for


def parse_directory(raw: bytes, count: int) -> Iterator[BitmapEntry]:
    """The bitmaps of a directory. Raises ValueError when it ends early."""
    position = 0
    for _ in range(count):
        try:
            offset, entries, flags, kind, bits, name, extra = _ENTRY.unpack_from(raw, position)
        except struct.error as error:
            raise ValueError("the directory of its bitmaps ends early") from error
        start = position + _ENTRY.size + extra
        position = -(-(start + name) // 8) * 8
        if kind == _DIRTY_TRACKING:
            text = raw[start : start + name].decode("utf-8", "replace")
            yield BitmapEntry(text, offset, entries, bool(flags & _IN_USE), 1 << bits)


def load(entry: BitmapEntry, *, cluster: int, size: int, read: Read) -> bytes:
    """The bits of a bitmap, the lowest of each byte first. Raises ValueError when it is shorter than the disk."""
    wanted = -(-size // (8 * entry.granularity))
    if entry.table_entries * cluster < wanted:
        raise ValueError(f"the bitmap {entry.name} is shorter than the disk")
    table = struct.unpack(f">{entry.table_entries}Q", read(entry.table_offset, 8 * entry.table_entries))
    parts: list[bytes] = []
    for value in table:
        if offset := value & _OFFSET_MASK:
            parts.append(read(offset, cluster))
        else:
            parts.append((b"\xff" if value & _ALL_ONES else b"\0") * cluster)
    return b"".join(parts)[:wanted]


def dirty_segments(bits: bytes, *, granularity: int, size: int, segment: int) -> set[int]:
    """The numbers of the segments (of so many bytes each) of a disk in which a bit is set."""
    count = -(-size // segment)
    per_segment = segment // granularity
    if per_segment >= 8 and per_segment % 8 == 0:  # noqa: PLR2004 - bits of a byte
        step = per_segment // 8
        clean = bytes(step)
        found = (number for number in range(count) if bits[number * step : (number + 1) * step].strip(clean[:1]))
        return set(found)
    dirty: set[int] = set()
    for place, byte in enumerate(bits):
        for bit in range(8) if byte else ():
            start = (8 * place + bit) * granularity
            if byte >> bit & 1 and start < size:
                dirty.update(range(start // segment, min((start + granularity - 1) // segment, count - 1) + 1))
    return dirty


def dirty_bytes(bits: bytes, granularity: int) -> int:
    """How much of the disk the set bits stand for, in bytes."""
    return int.from_bytes(bits, "little").bit_count() * granularity
