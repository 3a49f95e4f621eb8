"""The picture of a screen as PNG. Pure, and of the standard library alone: one filter, one chunk."""

import re
import struct
import zlib
from base64 import b64encode

PNG = b"\x89PNG\r\n\x1a\n"
_PPM = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)\s+255\s", re.DOTALL)
_WIDEST = 1024
"""Pixels; a larger screen loses lines and columns: it is to be recognised, and an artifact lies in a database."""


def as_png(picture: bytes) -> bytes:
    """A PPM (P6, eight bits) as PNG; a PNG stays as it is. Raises ValueError for anything else."""
    if picture.startswith(PNG):
        return picture
    head = _PPM.match(picture)
    if head is None:
        raise ValueError("neither PPM nor PNG")
    width, height = int(head[1]), int(head[2])
    pixels = picture[head.end() :]
    if len(pixels) < 3 * width * height or not width or not height:
        raise ValueError("the picture is cut short")
    step = -(-width // _WIDEST)
    rows = [_row(pixels[3 * width * line : 3 * width * (line + 1)], step) for line in range(0, height, step)]
    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def as_markdown(png: bytes, alt: str) -> str:
    """The picture inside of markdown."""
    return f"![{alt}](data:image/png;base64,{b64encode(png).decode()})"


def _row(line: bytes, step: int) -> bytes:
    if step == 1:
        return line
    return b"".join(line[3 * column : 3 * column + 3] for column in range(0, len(line) // 3, step))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
