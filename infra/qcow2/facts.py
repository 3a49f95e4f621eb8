"""What the header of a qcow2 image says of its tables. Pure."""

import struct
from dataclasses import dataclass

from infra.qcow2.header import parse_header

HEAD = 2 * 1024 * 1024
"""Bytes that hold every header: the largest cluster."""

EXTERNAL_DATA, COMPRESSION_TYPE = 1 << 2, 1 << 3
_BITMAPS_VALID = 1 << 0  # autoclear: a program that knows no bitmaps and writes to the image takes this bit away
_BITMAPS_EXTENSION = 0x23852875
_MAGIC_ONLY = struct.Struct(">II")
_V3 = struct.Struct(">4sIQIIQIIQQIIQQQQII")  # magic, version, ... refcount order, length of the header
_BITMAPS = struct.Struct(">IIQQ")  # how many, reserved, bytes and offset of their directory
_COMPRESSION_AT = 104
_SMALLEST, _LARGEST = 12, 21  # bits of a cluster's size; qemu allows 9 to 21, and tables of tiny clusters are slow here


@dataclass(frozen=True, slots=True)
class Facts:
    """An image of version 3. Sizes and offsets are bytes."""

    cluster: int
    size: int  # that the guest sees
    l1_offset: int
    l1_entries: int
    snapshots: int  # internal ones
    zstd: bool  # its compressed clusters, if it has any, are zstd's and not zlib's
    directory: tuple[int, int, int] | None  # of its bitmaps: how many, bytes, offset; None if none are valid


def parse_facts(head: bytes) -> Facts:
    """Read the first HEAD bytes of an image.

    Raises ValueError, in words for people, when it is no image whose content is found by tables alone.
    """
    parse_header(head)
    version: int = struct.unpack_from(">I", head, 4)[0]
    if version != 3:  # noqa: PLR2004 - the first with bitmaps
        raise ValueError(f"it is of version {version} of the format (compat=0.10), which keeps no dirty bitmaps")
    fields = _V3.unpack_from(head)
    cluster_bits, size, crypt, l1_entries, l1_offset = fields[4], fields[5], fields[6], fields[7], fields[8]
    snapshots, incompatible, autoclear, length = fields[11], fields[13], fields[15], fields[17]
    if fields[2]:
        raise ValueError("it has a backing file")
    if crypt:
        raise ValueError("it is encrypted")
    if incompatible & ~COMPRESSION_TYPE:
        raise ValueError(f"it uses features of the format that are read by qemu only (bits {incompatible:#x})")
    if not _SMALLEST <= cluster_bits <= _LARGEST:
        raise ValueError(f"its clusters are of {1 << cluster_bits} bytes")
    compression = head[_COMPRESSION_AT] if incompatible & COMPRESSION_TYPE and length > _COMPRESSION_AT else 0
    return Facts(
        cluster=1 << cluster_bits,
        size=size,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
        snapshots=snapshots,
        zstd=compression != 0,
        directory=_directory(head, length) if autoclear & _BITMAPS_VALID else None,
    )


def _directory(head: bytes, position: int) -> tuple[int, int, int] | None:
    """Where the bitmaps are listed, from the header's extensions."""
    while position + _MAGIC_ONLY.size <= len(head):
        kind, length = _MAGIC_ONLY.unpack_from(head, position)
        position += _MAGIC_ONLY.size
        if kind == 0:
            break
        if kind == _BITMAPS_EXTENSION:
            count, _, size, offset = _BITMAPS.unpack_from(head, position)
            return count, size, offset
        position += -(-length // 8) * 8
    return None
