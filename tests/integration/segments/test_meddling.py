"""What administrators do to an image between backups, and to the clock: every archive is the disk all the same.

Each archive is compared, byte for byte, with what qemu-img reads of the image. Controls take a safeguard away.
"""

import shutil
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import CommandFailed, ImageError
from infra.process import run
from infra.qcow2.image import Qcow2Image
from infra.segments.decide import DiskReading
from infra.segments.state import UNKNOWN
from tests.integration.segments.disk import BackedUpDisk
from tests.integration.segments.images import MIB, add_bitmap, content_of, crash, drop_bitmaps, make_image, qemu_io
from tests.integration.segments.test_archives import disk, make, repository, template

__all__ = ["disk", "make", "repository", "template"]
pytestmark = pytest.mark.integration

SEGMENT = 4 * MIB
DATA = 2 * SEGMENT  # two segments of the disk hold any


def qemu_img(*arguments: str | Path) -> None:
    """Carry out one command of qemu-img(1)."""
    run(["qemu-img", *map(str, arguments)], timeout=60)


def back_up(disk: BackedUpDisk) -> DiskReading:
    """Back it up, and compare the archive with the image."""
    name, reading, _ = disk.back_up()
    assert disk.archived(name) == content_of(disk.image), reading.reason
    assert disk.stale == []
    return reading


# ------------------------------------------------------------------------------------------------------- images


def test_an_internal_snapshot_taken_and_reverted(disk: BackedUpDisk) -> None:
    """Its clusters become shared, which the tables tell; qemu goes back to it only when no bitmap is left."""
    qemu_img("snapshot", "-c", "before", disk.image)
    assert "allocation" in back_up(disk).reason
    qemu_io(disk.image, ["write -P 9 5M 64k", "write -P 9 13M 64k"])
    assert back_up(disk).changed == 2
    with pytest.raises(CommandFailed, match="bitmap"):
        qemu_img("snapshot", "-a", "before", disk.image)
    drop_bitmaps(disk.image)
    qemu_img("snapshot", "-a", "before", disk.image)
    assert "is gone" in back_up(disk).reason
    qemu_img("snapshot", "-d", "before", disk.image)
    assert back_up(disk).full
    assert back_up(disk).changed == 0


def test_a_reverted_snapshot_whose_bitmap_was_made_anew(disk: BackedUpDisk) -> None:
    """Even a bitmap of the old name, empty after the revert, is not believed: the content lies elsewhere."""
    qemu_img("snapshot", "-c", "before", disk.image)
    qemu_io(disk.image, ["write -P 9 5M 64k"])
    back_up(disk)
    assert disk.state is not None
    drop_bitmaps(disk.image)
    qemu_img("snapshot", "-a", "before", disk.image)
    add_bitmap(disk.image, disk.state.checkpoint)
    assert "allocation" in back_up(disk).reason


def test_an_overlay_committed_offline(disk: BackedUpDisk) -> None:
    """qemu-img commit writes into the image as a guest would: the bitmap has it."""
    overlay = disk.image.with_name("overlay.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk.image, "-F", "qcow2", overlay)
    qemu_io(overlay, ["write -P 9 5M 64k", "write -z 21M 1M", "discard 13M 64k"])
    qemu_img("commit", "-q", overlay)
    reading = back_up(disk)
    assert (reading.full, sorted(changed_in(reading))) == (False, [1, 3, 5])


def changed_in(reading: DiskReading) -> list[int]:
    """The segments that are read."""
    return [number for number, each in enumerate(reading.generations) if each == reading.generation]


def test_an_image_rebased_there_and_back(disk: BackedUpDisk) -> None:
    """With a backing file it is not read by its tables; what qemu-img rebase copies in afterwards is seen."""
    below = make_image(disk.image.with_name("below.qcow2"), size=16 * MIB)
    qemu_io(below, ["write -P 7 9M 64k", "write -P 7 5M 2M"])
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", disk.image)
    with pytest.raises(ImageError) as refused:
        disk.back_up()
    assert "backing file" in refused.value.evidence
    qemu_img("rebase", "-f", "qcow2", "-b", "", disk.image)
    reading = back_up(disk)
    assert disk.archived(f"a{disk.made}")[9 * MIB] == 7
    assert reading.full or {1, 2} <= set(changed_in(reading))


def test_an_image_rebased_without_copying(disk: BackedUpDisk) -> None:
    """A backing file that was there for a while, and nothing written: the content is as before, and so is the rest."""
    below = make_image(disk.image.with_name("below.qcow2"), size=16 * MIB)
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", disk.image)
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "", disk.image)
    assert back_up(disk).changed == 0


def test_an_image_amended(disk: BackedUpDisk) -> None:
    """An option changes no content; the old format has no bitmaps, and back in the new one they are gone."""
    qemu_img("amend", "-f", "qcow2", "-o", "lazy_refcounts=on", disk.image)
    assert back_up(disk).changed == 0
    qemu_io(disk.image, ["write -P 9 5M 64k"])
    assert back_up(disk).changed == 1
    qemu_img("amend", "-f", "qcow2", "-o", "compat=0.10", disk.image)
    with pytest.raises(ImageError) as refused:
        disk.back_up(checkpoint=False)
    assert "compat=0.10" in refused.value.evidence
    qemu_io(disk.image, ["write -P 8 13M 64k"])
    qemu_img("amend", "-f", "qcow2", "-o", "compat=1.1", disk.image)
    assert "is gone" in back_up(disk).reason


@pytest.mark.parametrize("move", [Path.rename, shutil.copyfile], ids=["mv", "cp"])
def test_an_image_at_another_path(disk: BackedUpDisk, move: Callable[[Path, Path], object]) -> None:
    """It is another file, though its bitmaps came with it, and is read in full; then less again."""
    there = disk.image.with_name("elsewhere.qcow2")
    move(disk.image, there)
    disk.image = there
    qemu_io(disk.image, ["write -P 9 5M 64k"])
    assert "another file" in back_up(disk).reason
    assert back_up(disk).changed == 0


def test_an_old_copy_written_over_the_image(disk: BackedUpDisk) -> None:
    """The same file, path and inode, with bitmaps of the day of the copy: what they tell counts from that day."""
    copy = disk.image.with_name("copy.qcow2")
    shutil.copyfile(disk.image, copy)
    qemu_io(disk.image, ["write -P 9 5M 64k"])
    disk.back_up(remember=False)
    shutil.copyfile(copy, disk.image)
    assert back_up(disk).changed == 0
    qemu_io(disk.image, ["write -P 8 5M 64k"])
    back_up(disk)
    shutil.copyfile(copy, disk.image)
    assert "is gone" in back_up(disk).reason


# -------------------------------------------------------------------------------------------------------- clock


def test_a_clock_that_is_set_back(disk: BackedUpDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backed up years ahead of now, then now: what did not change is not read, what did is, and all is right."""
    for ahead in (1.3, 1.2, 1.0):
        monkeypatch.setattr(time, "time_ns", _clock(ahead))
        qemu_io(disk.image, [f"write -P {int(10 * ahead)} 5M 64k"])
        assert back_up(disk).changed == 1
        assert disk.read == SEGMENT
    back_up(disk)
    assert disk.read == 0


def _clock(factor: float) -> Callable[[], int]:
    now = time.time()
    return lambda: int(now * factor) * 10**9


def test_a_clock_that_was_far_ahead(disk: BackedUpDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that seem newer than the manifest are not kept in borg's cache: more is read, and all is right."""
    monkeypatch.setattr(time, "time_ns", _clock(3))
    qemu_io(disk.image, ["write -P 9 5M 64k"])
    assert back_up(disk).changed == 1
    monkeypatch.undo()
    assert back_up(disk).changed == 0
    qemu_io(disk.image, ["write -P 8 5M 64k"])
    assert back_up(disk).changed == 1


def test_a_clock_that_stands_still(disk: BackedUpDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """At one and the same time each backup has a generation of its own."""
    monkeypatch.setattr(time, "time_ns", _clock(1))
    given: set[int] = set()
    for number in range(3):
        qemu_io(disk.image, [f"write -P {number + 1} 5M 64k"])
        given.add(back_up(disk).generation)
    assert len(given) == 3


# ------------------------------------------------------------------------------------------------------- caches


def test_more_vms_than_borg_remembers(disk: BackedUpDisk) -> None:
    """25 other VMs were backed up since, each with a cache of its own: nothing is read of an unchanged disk.

    The control: borg forgets what 20 backups with the same cache did not see.
    """
    sentinel = str(disk.work / "sentinel")
    for number in range(25):
        disk.repository.create(f"other{number}", [sentinel], comment="", files_cache_suffix=f"vm{number}")
    assert back_up(disk).changed == 0
    assert disk.read == 0
    for number in range(20):
        disk.repository.create(f"same{number}", [sentinel], comment="", files_cache_suffix="x")
    assert back_up(disk).changed == 0
    assert disk.read == DATA


# ----------------------------------------------------------------------------------------------------- controls


def test_without_generations_that_are_never_given_again(disk: BackedUpDisk) -> None:
    """The control: a generation that a dead run had given already makes the next archive that of the dead run."""
    dead = 0

    def again(reading: DiskReading) -> DiskReading:
        nonlocal dead
        dead = dead or reading.generation
        number = changed_in(reading)[0]
        generations = array("Q", reading.generations)
        generations[number] = dead
        return replace(reading, generation=dead, generations=generations)

    qemu_io(disk.image, ["write -P 8 5M 64k"])
    disk.back_up(remember=False, edit=again)
    qemu_io(disk.image, ["write -P 9 5M 64k"])
    name, _, _ = disk.back_up(edit=again)
    assert disk.archived(name) != content_of(disk.image)


def test_without_the_mark_of_a_crash(disk: BackedUpDisk) -> None:
    """The control: a crash leaves no bits; with its mark taken off the bitmap and no sample the archive is stale."""
    crash(disk.image, ["write -P 9 5M 64k"])
    assert disk.state is not None
    with Qcow2Image(str(disk.image)) as image:
        assert image.facts.directory is not None
        entry = image.bitmap(disk.state.checkpoint)
        offset = image.facts.directory[2]
    assert entry is not None
    assert entry.in_use
    kept = disk.image.read_bytes()
    with disk.image.open("r+b") as file:
        file.seek(offset + 12)  # flags, after the table's offset and size
        file.write(bytes(4))
    memory = disk.state
    disk.state = replace(memory, seen=array("Q", [UNKNOWN]) * len(memory.seen))
    name, reading, _ = disk.back_up(remember=False)
    assert not reading.full
    assert disk.archived(name) != content_of(disk.image)
    disk.image.write_bytes(kept)
    disk.state = memory
    assert "in use" in back_up(disk).reason
