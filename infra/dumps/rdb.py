"""Whether an RDB file is whole: magic, end mark, and the CRC-64 over everything before it.

Source: redis 7.0, src/rdb.c (RDB_OPCODE_EOF, rdbchecksum) and src/crc64.c (Jones' polynomial, reflected).
"""

import re
import struct
from pathlib import Path

from infra.errors import DumpIncomplete

_POLYNOMIAL = 0x95AC9329AC4BC9B5  # 0xAD93D23594C935A9 with its bits reversed
_END = 0xFF
_FOOTER = 9  # the end mark and eight bytes of checksum
_MARK = re.compile(rb"[0-9a-f]{40}")
"""A server that replicates without a disk ends its stream with this, and `redis-cli --rdb -` cannot take back what it
has written (src/redis-cli.c: it cuts it off files only). A server that loads the file does not read so far."""
_BLOCK = 1 << 20


def _tables() -> list[list[int]]:
    first: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ _POLYNOMIAL if value & 1 else value >> 1
        first.append(value)
    tables = [first]
    for _ in range(7):
        tables.append([first[value & 0xFF] ^ value >> 8 for value in tables[-1]])
    return tables


_TABLES = _tables()


def crc64(data: bytes, crc: int = 0) -> int:
    """The checksum of `data`, going on from `crc`. Eight bytes a step ("slicing by eight")."""
    t0, t1, t2, t3, t4, t5, t6, t7 = _TABLES
    whole = len(data) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        mixed = crc ^ word
        crc = (
            t7[mixed & 255]
            ^ t6[mixed >> 8 & 255]
            ^ t5[mixed >> 16 & 255]
            ^ t4[mixed >> 24 & 255]
            ^ t3[mixed >> 32 & 255]
            ^ t2[mixed >> 40 & 255]
            ^ t1[mixed >> 48 & 255]
            ^ t0[mixed >> 56]
        )
    for byte in data[whole:]:
        crc = t0[(crc ^ byte) & 255] ^ crc >> 8
    return crc


def require_whole(path: Path) -> None:
    """Raise DumpIncomplete unless the file is a whole RDB. A checksum of 0 means that the server keeps none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(5) != b"REDIS":
            raise _broken("it does not begin with REDIS")
        file.seek(max(0, size - 40))
        if _MARK.fullmatch(file.read(40)):
            size -= 40
        file.seek(max(0, size - _FOOTER))
        footer = file.read(_FOOTER)
        if len(footer) < _FOOTER or footer[0] != _END:
            raise _broken("it does not end with the end mark")
        (stored,) = struct.unpack("<Q", footer[1:])
        if not stored:
            return
        file.seek(0)
        crc, left = 0, size - 8
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            crc, left = crc64(block, crc), left - len(block)
    if crc != stored:
        raise _broken(f"its checksum is {crc:016x}, it says {stored:016x}")


def _broken(why: str) -> DumpIncomplete:
    return DumpIncomplete(
        "The RDB file is not whole.",
        evidence=why,
        remedy="Look at the server's log; the last good dump is kept.",
    )
