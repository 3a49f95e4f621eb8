"""The proof of a mongodump archive, on archives made by its documented format."""

import struct
from pathlib import Path

import pytest

from infra.dumps.mongo_archive import MAGIC, TERMINATOR, require_whole
from infra.errors import DumpIncomplete


def bson(**fields: str | bool | int) -> bytes:
    """A BSON document of texts, truth values and 64-bit numbers."""
    body = b""
    for name, value in fields.items():
        key = name.encode() + b"\0"
        if isinstance(value, bool):
            body += b"\x08" + key + bytes([value])
        elif isinstance(value, int):
            body += b"\x12" + key + struct.pack("<q", value)
        else:
            text = value.encode() + b"\0"
            body += b"\x02" + key + struct.pack("<i", len(text)) + text
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def archive(*, ends: tuple[str, ...] = ("users", "orders")) -> bytes:
    """Two collections whose blocks take turns; `ends` are those that come to their end."""
    prelude = MAGIC + bson(concurrent_collections=4, version="0.1", server_version="7.0", tool_version="100.9")
    for name in ("users", "orders"):
        prelude += bson(db="shop", collection=name, metadata="{}", size=0, type="collection")
    blocks = b""
    for number, name in enumerate(("users", "orders", "users")):
        blocks += bson(db="shop", collection=name, EOF=False, CRC=0)
        blocks += b"".join(bson(_id=number * 100 + each, text="x" * each) for each in range(50)) + TERMINATOR
    for name in ends:
        blocks += bson(db="shop", collection=name, EOF=True, CRC=77) + TERMINATOR
    return prelude + TERMINATOR + blocks


def _checked(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    require_whole(path)


def test_a_whole_archive_is_accepted(tmp_path: Path) -> None:
    """An archive in which every announced collection ends is whole; so is one of an empty server."""
    _checked(tmp_path / "x", archive())
    _checked(tmp_path / "x", MAGIC + bson(version="0.1") + TERMINATOR)


def test_a_collection_without_end_is_named(tmp_path: Path) -> None:
    """An archive that stops between two blocks lacks ends, and the error says of which collection."""
    with pytest.raises(DumpIncomplete) as caught:
        _checked(tmp_path / "x", archive(ends=("users",)))
    assert "shop.orders" in caught.value.evidence


@pytest.mark.parametrize("blocks", ["system.buckets.weather", "weather"])
def test_a_time_series_ends_by_its_buckets(tmp_path: Path, blocks: str) -> None:
    """A time series is announced by its name and comes as its buckets, from new servers as itself, to its end."""
    begin = MAGIC + bson(version="0.1", server_version="5.0.0", tool_version="100.3.1")
    begin += bson(db="shop", collection="weather", metadata="{}", size=0, type="timeseries") + TERMINATOR
    data = bson(db="shop", collection=blocks, EOF=False, CRC=0) + bson(_id=1, text="sunny") + TERMINATOR
    end = bson(db="shop", collection=blocks, EOF=True, CRC=77) + TERMINATOR
    _checked(tmp_path / "x", begin + data + end)
    with pytest.raises(DumpIncomplete) as caught:
        _checked(tmp_path / "x", begin + data)
    assert "shop.weather" in caught.value.evidence


def test_wherever_it_is_cut_off_it_is_refused(tmp_path: Path) -> None:
    """No beginning of an archive counts as a whole one."""
    whole = archive()
    for length in [*range(400), *range(400, len(whole), 97), len(whole) - 1]:
        with pytest.raises(DumpIncomplete):
            _checked(tmp_path / "x", whole[:length])


@pytest.mark.parametrize("content", [b"", b"x" * 100, MAGIC + b"\xff" * 40, MAGIC + struct.pack("<i", -7) * 9])
def test_nonsense_is_refused(tmp_path: Path, content: bytes) -> None:
    """What is no archive at all is refused in the same way."""
    with pytest.raises(DumpIncomplete):
        _checked(tmp_path / "x", content)
