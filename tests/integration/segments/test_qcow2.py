"""qcow2 images read without qemu: the same content, the same dirty bits."""

import random
from pathlib import Path

import pytest

from infra.errors import ImageError
from infra.process import run
from infra.qcow2.bitmaps import dirty_segments
from infra.qcow2.file import ImageFile, page_buffer
from infra.qcow2.image import Qcow2Image
from tests.integration.segments.images import MIB, add_bitmap, content_of, make_image, qemu_io, some_writes

SIZE = 20 * MIB + 512
SEGMENT = 4 * MIB

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("options", ["compat=1.1", "compat=1.1,cluster_size=4k", "compat=1.1,cluster_size=2M"])
def test_content_is_what_qemu_reads(options: str, tmp_path: Path) -> None:
    """Whatever was written, zeroed, discarded or compressed, each segment is read as qemu reads it."""
    chance = random.Random(options)
    image = make_image(tmp_path / "a.qcow2", size=SIZE, options=options)
    qemu_io(image, some_writes(chance, SIZE, 40))
    packed = tmp_path / "packed.qcow2"
    run(["qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, str(image), str(packed)], timeout=120)
    qemu_io(packed, some_writes(chance, SIZE, 5))
    for path in (image, packed):
        expected = content_of(path)
        with Qcow2Image(str(path)) as opened:
            starts = range(0, SIZE, SEGMENT)
            assert [opened.read(start, min(SEGMENT, SIZE - start)) for start in starts] == [
                expected[start : start + SEGMENT] for start in starts
            ]
            holes = [start for start in starts if opened.is_hole(start, min(SEGMENT, SIZE - start))]
            assert [start for start in holes if expected[start : start + SEGMENT].strip(b"\0")] == []


def test_direct_reads_and_cached_reads_are_the_same(tmp_path: Path) -> None:
    """Whether a place may be read past the page cache or not, and behind the file's end too."""
    content = random.Random(5).randbytes(3 * 4096 + 100)
    path = tmp_path / "file"
    path.write_bytes(content)
    file = ImageFile(str(path))
    try:
        for offset, length in ((0, 8192), (4096, 8192), (512, 8192), (0, 100), (8192, 3 * 4096), (5 * 4096, 4096)):
            buffer = page_buffer(16384)
            buffer[:] = b"x" * 16384
            file.fill(memoryview(buffer)[:length], offset)
            assert buffer[:length] == content[offset : offset + length].ljust(length, b"\0")
            assert set(buffer[length:]) <= {ord("x")}
    finally:
        file.close()


def test_dirty_segments_are_those_that_qemu_wrote_to(tmp_path: Path) -> None:
    """A bitmap tells each segment that was written to since it was made, and no other."""
    chance = random.Random(3)
    image = make_image(tmp_path / "a.qcow2", size=SIZE)
    qemu_io(image, some_writes(chance, SIZE, 20))
    add_bitmap(image, "before")
    places = [chance.randrange(0, SIZE // 512) * 512 for _ in range(3)]
    qemu_io(image, [f"write -P 9 {place} 512" for place in places])
    add_bitmap(image, "after")
    with Qcow2Image(str(image)) as opened:
        found = {name: opened.bitmap(name) for name in ("before", "after", "never")}
        assert found["never"] is None
        dirty = {
            name: dirty_segments(opened.bits(entry), granularity=entry.granularity, size=SIZE, segment=SEGMENT)
            for name, entry in found.items()
            if entry is not None
        }
    assert dirty == {"before": {place // SEGMENT for place in places}, "after": set()}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("compat=0.10", "version 2"),
        ("compat=1.1,extended_l2=on,cluster_size=128k", "features"),
        ("compat=1.1,data_file=content", "features"),
        ("compat=1.1,encrypt.format=aes,encrypt.key-secret=s", "encrypted"),
        ("compat=1.1,backing_file=below.qcow2,backing_fmt=qcow2", "backing file"),
    ],
)
def test_what_its_tables_do_not_tell_is_refused(options: str, reason: str, tmp_path: Path) -> None:
    """An image whose content is elsewhere, or not plain, is refused with the reason."""
    make_image(tmp_path / "below.qcow2", size=MIB)
    secret = ["--object", "secret,id=s,data=x"] if "encrypt" in options else []
    path = tmp_path / "a.qcow2"
    run(
        ["qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o", options, str(path), str(MIB)],
        timeout=60,
        cwd=str(tmp_path),
    )
    with pytest.raises(ImageError) as refused:
        Qcow2Image(str(path))
    assert reason in refused.value.evidence
