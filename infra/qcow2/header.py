"""What the header of a qcow2 image points to, read without qemu: the image is not trusted yet. Pure parsing.

An image may name any file or URL of the host as its backing or data file, and qemu opens it. The layout is
that of docs/interop/qcow2.txt of qemu.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ImageError

_MAGIC = b"QFI\xfb"
_FIXED = struct.Struct(">4sIQI")  # magic, version, offset and length of the backing file's name
_INCOMPATIBLE_OFFSET = 72
_V2_LENGTH = 72
_EXTERNAL_DATA = 1 << 2
_MAX_NAME = 1023  # the format's own limit
_CLUSTER = 2 * 1024 * 1024  # the largest cluster; the name lies in the first one


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """The files an image needs beside itself."""

    backing: str  # "" without one
    external_data: bool  # its content is in another file


def parse_header(head: bytes) -> Qcow2Header:
    """Read the first bytes of an image. Raises ValueError when they are not qcow2."""
    if len(head) < _V2_LENGTH or not head.startswith(_MAGIC):
        raise ValueError("the qcow2 signature is missing")
    _, version, offset, length = _FIXED.unpack_from(head)
    if version not in (2, 3):
        raise ValueError(f"qcow2 version {version} is unknown")
    if length > _MAX_NAME or (length and offset + length > len(head)):
        raise ValueError(f"the backing file's name ({length} bytes at {offset}) is outside the header")
    backing = head[offset : offset + length].decode("utf-8", "surrogateescape") if offset and length else ""
    features = 0
    if version == 3:  # noqa: PLR2004 - the version that brought feature bits
        (features,) = struct.unpack_from(">Q", head.ljust(_INCOMPATIBLE_OFFSET + 8, b"\0"), _INCOMPATIBLE_OFFSET)
    return Qcow2Header(backing=backing, external_data=bool(features & _EXTERNAL_DATA))


def read_header(path: Path) -> Qcow2Header:
    """Read an image's header. Raises ImageError."""
    try:
        with path.open("rb") as file:
            return parse_header(file.read(_CLUSTER))
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{path.name} is not the qcow2 image that the manifest says it is.",
            evidence=f"{path}: {error}",
            remedy="Restore another archive, and look at this one with borg check --verify-data.",
        ) from error
