"""Every archive is the disk, whatever happened to the image between backups; and what the safeguards are for."""

import os
import signal
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from infra.borg.client import Repository
from infra.errors import ArchiveIncomplete, StorageError
from infra.process import run
from infra.qcow2.image import Qcow2Image
from infra.segments.decide import decide, segment_size
from infra.segments.state import UNKNOWN
from infra.segments.view import segment_view
from tests.integration.borg.conftest import make, repository, template
from tests.integration.segments.disk import BackedUpDisk
from tests.integration.segments.images import MIB, content_of, make_image, qemu_io
from tests.integration.segments.story import SIZE, Story

__all__ = ["make", "repository", "template"]
pytestmark = pytest.mark.integration

SEED = 20261124


@pytest.fixture
def disk(tmp_path: Path, repository: Repository) -> BackedUpDisk:
    """A disk with data in its second and its sixth segment, backed up once."""
    image = make_image(tmp_path / "vda.qcow2", size=SIZE)
    qemu_io(image, ["write -P 5 5M 1M", "write -P 6 21M 1M"])
    found = BackedUpDisk(image, repository, tmp_path)
    found.back_up()
    return found


def shrink_and_regrow(image: Path) -> None:
    """What was in the last segments is gone, and no dirty bit tells."""
    for size in (16 * MIB, SIZE):
        run(["qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", str(image), str(size)], timeout=60)


def test_a_life_drawn_by_lot(tmp_path: Path, repository: Repository) -> None:
    """Writes, discards, crashes, resizes, restores, lost memories and prunes: every archive is what the disk was."""
    print(f"seed {SEED}")  # noqa: T201 - to play it again
    story = Story(tmp_path, repository, seed=SEED)
    story.play(14)
    assert set(story.modes) == {"full", "incremental"}
    assert story.disk.stale == []


def test_a_disk_that_was_shrunk_and_has_grown_again(disk: BackedUpDisk) -> None:
    """The bitmap says nothing of what was lost; the tables do, and everything is read."""
    shrink_and_regrow(disk.image)
    name, reading, _ = disk.back_up()
    assert (reading.full, "allocation" in reading.reason) == (True, True)
    assert disk.archived(name) == content_of(disk.image)


def test_the_same_without_the_guard(disk: BackedUpDisk) -> None:
    """The control: with the fingerprint of the tables and the sample taken away, that archive is stale."""
    shrink_and_regrow(disk.image)
    assert disk.state is not None
    with Qcow2Image(str(disk.image)) as image:
        tables = image.fingerprints(segment_size(image.size))
    disk.state = replace(disk.state, tables=tables, seen=array("Q", [UNKNOWN]) * len(tables))
    name, reading, _ = disk.back_up()
    assert not reading.full
    assert disk.archived(name) != content_of(disk.image)


def test_a_full_read_compares_what_should_not_have_changed(disk: BackedUpDisk) -> None:
    """When a full read is due, a segment that changed past qemu is found, and the archive is right."""
    disk.full_read_every = 1
    with disk.image.open("r+b") as image:
        image.seek(image.read().index(b"\5" * MIB))
        image.write(b"\7" * MIB)
    name, reading, _ = disk.back_up()
    assert "due" in reading.reason
    assert disk.stale == [1]
    assert disk.archived(name) == content_of(disk.image)


def test_an_unremembered_run_leaves_nothing_true_to_a_later_one(disk: BackedUpDisk) -> None:
    """What borg learned in a run that nobody remembered is never used: the guest wrote differently since."""
    qemu_io(disk.image, ["write -P 8 5M 64k"])
    disk.back_up(remember=False)
    qemu_io(disk.image, ["write -P 9 5M 64k"])
    name, reading, _ = disk.back_up()
    assert (reading.full, reading.changed) == (False, 1)
    assert disk.archived(name) == content_of(disk.image)


def test_a_dead_mount_is_noticed(disk: BackedUpDisk, tmp_path: Path) -> None:
    """A server that was killed fails the check before borg, and a borg that began all the same."""
    with Qcow2Image(str(disk.image)) as image:
        reading = decide(image, None, target="vda", full_read_every=14)
    with segment_view(tmp_path / "disks", [reading]) as view:
        view.require_live()
        os.kill(int(view.prefix[1].split("/")[2]), signal.SIGKILL)
        with pytest.raises(StorageError):
            view.finish()
        with pytest.raises(StorageError):
            view.require_live()
    assert [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line] == []


def test_a_disk_that_cannot_be_read_is_no_archive(disk: BackedUpDisk) -> None:
    """A compressed cluster that is damaged fails the backup."""
    packed = disk.image.with_name("packed.qcow2")
    run(["qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", str(disk.image), str(packed)], timeout=60)
    with Qcow2Image(str(packed)) as image, packed.open("r+b") as file:
        entry = int.from_bytes(image.entries(5 * MIB // image.facts.cluster, 1), "big")
        file.seek(entry & ((1 << image._compressed_bits) - 1))
        file.write(b"\xff" * 16)
    disk.image = packed
    with pytest.raises(ArchiveIncomplete):
        disk.back_up(checkpoint=False)
