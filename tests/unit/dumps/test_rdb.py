"""The proof of an RDB file."""

import struct
from pathlib import Path

import pytest

from infra.dumps.rdb import crc64, require_whole
from infra.errors import DumpIncomplete

BODY = b"REDIS0011" + bytes(range(256)) * 40 + b"\xff"
WHOLE = BODY + struct.pack("<Q", crc64(BODY))


def _checked(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    require_whole(path)


def test_the_checksum_is_redis_own() -> None:
    """The check value of Redis' own test (src/crc64.c) comes out, also when the data comes in two parts."""
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"56789", crc64(b"1234")) == 0xE9C6D914C4B8D9CA


@pytest.mark.parametrize("tail", [b"", b"0123456789abcdef0123456789abcdef01234567"])
def test_a_whole_file_is_accepted(tmp_path: Path, tail: bytes) -> None:
    """A file with a right checksum is whole, also with the mark of a diskless stream behind it."""
    _checked(tmp_path / "x", WHOLE + tail)


def test_a_server_without_checksums_is_believed(tmp_path: Path) -> None:
    """A checksum of zero means that the server makes none."""
    _checked(tmp_path / "x", BODY + bytes(8))


@pytest.mark.parametrize("length", [0, 4, 5, 9, 100, len(WHOLE) - 9, len(WHOLE) - 8, len(WHOLE) - 1])
def test_a_cut_file_is_refused(tmp_path: Path, length: int) -> None:
    """Wherever it is cut off, it is refused."""
    with pytest.raises(DumpIncomplete):
        _checked(tmp_path / "x", WHOLE[:length])


@pytest.mark.parametrize("place", [0, 50, len(BODY) - 2, len(WHOLE) - 3])
def test_a_changed_byte_is_refused(tmp_path: Path, place: int) -> None:
    """A single wrong byte is refused."""
    changed = bytearray(WHOLE)
    changed[place] ^= 1
    with pytest.raises(DumpIncomplete):
        _checked(tmp_path / "x", bytes(changed))
