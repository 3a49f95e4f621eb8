"""Whether an archive of mongodump is whole.

The format (MongoDB Database Tools, package archive): four bytes of magic; the prelude, which is a header document, one
document for each collection, and a terminator; then blocks, each a document {db, collection, EOF, CRC}, documents, and
a terminator. Every collection that the prelude names ends with a block whose EOF is true. A terminator is four 0xFF.
The blocks of a time series bear the name of its buckets (before MongoDB 8.3; mongodump.go asks the server's version),
the prelude its own.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from infra.errors import DumpIncomplete

MAGIC = b"\x6d\xe2\x99\x81"
TERMINATOR = b"\xff\xff\xff\xff"
_SMALLEST, _LARGEST = 5, 48 * 1024 * 1024  # of a BSON document; mongod's own limit is 16 MiB and a bit
_STRING, _BOOLEAN = 2, 8
_FIXED = {0x01: 8, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0xFF: 0, 0x7F: 0}

_TIME_SERIES, _BUCKETS = "timeseries", "system.buckets."

Namespace = tuple[str, str]


def require_whole(path: Path) -> None:
    """Raise DumpIncomplete unless every collection that the archive announces has come to its end."""
    try:
        with path.open("rb") as file:
            announced = _prelude(file)
            ended = _blocks(file, os.fstat(file.fileno()).st_size)
    except (ValueError, struct.error) as error:
        raise _broken(str(error)) from error
    missing = sorted(name for name, blocks in announced.items() if not blocks & ended)
    if missing:
        names = ", ".join(".".join(name) for name in missing[:5])
        raise _broken(f"{len(missing)} collections have no end, among them {names}")


def _prelude(file: BinaryIO) -> dict[Namespace, set[Namespace]]:
    """Each collection that is announced, and the names that its blocks may bear."""
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with mongodump's magic number")
    if _document(file) is None:
        raise ValueError("it has no header")
    found: dict[Namespace, set[Namespace]] = {}
    while (document := _document(file)) is not None:
        fields = _scalars(document)
        database, name = str(fields.get("db", "")), str(fields.get("collection", ""))
        found[database, name] = {(database, name)}
        if fields.get("type") == _TIME_SERIES:
            found[database, name].add((database, f"{_BUCKETS}{name}"))
    return found


def _blocks(file: BinaryIO, size: int) -> set[Namespace]:
    ended: set[Namespace] = set()
    while file.tell() < size:
        header = _document(file)
        if header is None:
            raise ValueError(f"a block without header before byte {file.tell()}")
        fields = _scalars(header)
        if fields.get("EOF") is True:
            ended.add((str(fields.get("db", "")), str(fields.get("collection", ""))))
        while _skip(file):
            pass
    return ended


def _length(file: BinaryIO) -> int | None:
    """The length of the next document; None at a terminator."""
    head = file.read(4)
    if head == TERMINATOR:
        return None
    if len(head) < len(TERMINATOR):
        raise ValueError(f"it ends in the middle, at byte {file.tell()}")
    (length,) = struct.unpack("<i", head)
    if not _SMALLEST <= length <= _LARGEST:
        raise ValueError(f"no document at byte {file.tell() - 4}")
    return length


def _skip(file: BinaryIO) -> bool:
    length = _length(file)
    if length is None:
        return False
    file.seek(length - 5, os.SEEK_CUR)
    if file.read(1) != b"\0":
        raise ValueError(f"a document is cut off or damaged before byte {file.tell()}")
    return True


def _document(file: BinaryIO) -> bytes | None:
    length = _length(file)
    if length is None:
        return None
    content = file.read(length - 4)
    if len(content) < length - 4 or content[-1]:
        raise ValueError(f"a document is cut off or damaged before byte {file.tell()}")
    return content[:-1]


def _scalars(document: bytes) -> dict[str, str | bool | None]:
    """The texts and truth values at the top of a BSON document; values of other types are passed over."""
    fields: dict[str, str | bool | None] = {}
    at = 0
    while at < len(document):
        kind = document[at]
        end = document.index(0, at + 1)
        name, at = document[at + 1 : end].decode("utf-8", "replace"), end + 1
        if kind == _STRING:
            (length,) = struct.unpack_from("<i", document, at)
            fields[name] = document[at + 4 : at + 3 + length].decode("utf-8", "replace")
            at += 4 + length
        elif kind in _FIXED:
            fields[name] = document[at] == 1 if kind == _BOOLEAN else None
            at += _FIXED[kind]
        elif kind in {0x03, 0x04}:
            at += struct.unpack_from("<i", document, at)[0]
        else:
            break
    return fields


def _broken(why: str) -> DumpIncomplete:
    return DumpIncomplete(
        "The archive of mongodump is not whole.",
        evidence=why,
        remedy="Look at the server's log; the last good dump is kept.",
    )
