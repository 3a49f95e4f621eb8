"""The picture of a screen as PNG."""

import struct
import zlib

import pytest

from tasks.drills.picture import PNG, as_png


def ppm(width: int, height: int) -> bytes:
    """A picture whose every pixel tells its place."""
    pixels = bytes(value % 256 for y in range(height) for x in range(width) for value in (x, y, x + y))
    return b"P6\n# made by a test\n%d %d\n255\n" % (width, height) + pixels


def decoded(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and pixels, with every checksum looked at."""
    assert png.startswith(PNG)
    chunks: dict[bytes, bytes] = {}
    rest = png[len(PNG) :]
    while rest:
        length, kind = struct.unpack(">I4s", rest[:8])
        data, (crc,) = rest[8 : 8 + length], struct.unpack(">I", rest[8 + length : 12 + length])
        assert crc == zlib.crc32(kind + data)
        chunks[kind], rest = data, rest[12 + length :]
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = zlib.decompress(chunks[b"IDAT"])
    stride = 3 * width + 1
    rows = [lines[stride * line : stride * (line + 1)] for line in range(height)]
    assert all(row[0] == 0 for row in rows)
    return width, height, b"".join(row[1:] for row in rows)


def test_a_small_picture_keeps_every_pixel() -> None:
    """Size and pixels are those of the PPM."""
    picture = ppm(7, 5)
    assert decoded(as_png(picture)) == (7, 5, picture[-7 * 5 * 3 :])


def test_a_large_picture_becomes_small_enough() -> None:
    """Every second line and column of a screen twice as wide as an artifact shows."""
    width, height, pixels = decoded(as_png(ppm(2000, 10)))
    assert (width, height) == (1000, 5)
    assert pixels[3:6] == bytes([2, 0, 2])


def test_a_png_stays_and_anything_else_is_refused() -> None:
    """Newer libvirt may give PNG; a picture that is cut short is none."""
    assert as_png(PNG + b"x") == PNG + b"x"
    for wrong in (b"", b"P5\n1 1\n255\nx", ppm(4, 4)[:-1]):
        with pytest.raises(ValueError, match=r"PPM|short"):
            as_png(wrong)
