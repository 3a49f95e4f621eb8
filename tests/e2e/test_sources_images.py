"""Whatever a disk is stored in, its content is archived and comes back, and nothing but the disk itself is written."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.process import run
from tests.e2e.checks import sources
from tests.e2e.observing import repeating
from tests.e2e.sources import MIB, SIZE, Sources, assert_holds, disk, drive, fill_image, guest_io
from tests.guests import Guest
from tests.integration.bare import digest, loop_device

pytestmark = pytest.mark.e2e

LARGE = 1024 * MIB
COUNTER = 251  # the counter's numbers are 1 to this
ODD_SIZE = SIZE + 512  # of the block device: no whole number of borg's blocks


@dataclass
class BackedUp:
    """Two running VMs after one command backed them up.

    `counting` writes a counter to a qcow2 image, a raw one and a block device, in this order and without a pause.
    `standing` has a linked clone, a block device, a large sparse image and an image behind a link, and is idle.
    """

    counting: Guest
    standing: Guest
    bases: dict[str, dict[str, str]]
    template: Path
    template_before: tuple[str, int]
    device: Path
    sparse_before: int
    last_written: int
    outcomes: dict[str, dict[str, Any]]


def fingerprint(path: Path) -> tuple[str, int]:
    """Content and time of change."""
    return digest(path), path.stat().st_mtime_ns


def used(path: Path | str) -> int:
    """Bytes that a file takes of its file system."""
    return Path(path).stat().st_blocks * 512


def block(path: Path) -> str:
    """The source of a block device."""
    return f"<source dev='{path}'/>"


def counting_guest(host: Sources) -> Guest:
    """On vda, vdb and vdc: qcow2, raw, block."""
    device = host.enter(loop_device(host.folder / "counting.img", SIZE))
    disks = [
        disk("vda", host.image("counting.qcow2")),
        disk("vdb", host.image("counting.raw", "raw"), "raw"),
        drive("vdc", block(device), kind="block"),
    ]
    return host.define("images-counting", *disks).start()


def standing_guest(host: Sources, template: Path, device: Path) -> Guest:
    """On vda a clone, on vdb a block device, on vdc a sparse raw image, on vdd an image behind a link."""
    clone = host.image("clone.qcow2", backing=template)
    fill_image(clone, "qcow2", 2, offset=MIB)
    link = host.folder / "link.qcow2"
    link.symlink_to(host.image("real.qcow2", fill=5))
    disks = [
        disk("vda", clone),
        drive("vdb", block(device), kind="block"),
        disk("vdc", host.image("sparse.raw", "raw", size=LARGE), "raw", driver="discard='unmap'"),
        disk("vdd", f"{link.parent}//{link.name}"),
    ]
    guest = host.define("images-standing", *disks).start()
    guest_io(guest, "vdc", "write -P 6 512M 8M", "discard 512M 4M", "flush")
    return guest


@pytest.fixture(scope="module")
def first(host: Sources) -> BackedUp:
    """Both, backed up while one writes."""
    template = host.image("template.qcow2", fill=1)
    device = host.enter(loop_device(host.folder / "device.img", ODD_SIZE))
    fill_image(device, "raw", 4)
    counting, standing = counting_guest(host), standing_guest(host, template, device)
    written = [0]

    def write() -> None:
        written.append(written[-1] % COUNTER + 1)
        for target in ("vda", "vdb", "vdc"):
            guest_io(counting, target, f"write -P {written[-1]} 0 512")

    before = {
        "bases": {guest.name: sources(guest) for guest in (counting, standing)},
        "template_before": fingerprint(template),
        "sparse_before": used(host.folder / "sparse.raw"),
        "template": template,
        "device": device,
    }
    with repeating(write, interval=0):
        outcomes = host.backup(counting.name, standing.name)
    return BackedUp(counting, standing, outcomes=outcomes, last_written=written[-1], **before)


def first_byte(path: str, image_format: str) -> int:
    """The counter in an image that nobody has open."""
    shown = run(["qemu-io", "-r", "-f", image_format, "-c", "read -v 0 1", path], timeout=60).stdout
    return int(shown.split(":", 1)[1].split()[0], 16)


def test_every_disk_is_back_on_its_image(host: Sources, first: BackedUp) -> None:
    """qcow2, raw, block device, clone and link: after the backup each disk is on the image that it was on."""
    for guest in (first.counting, first.standing):
        assert first.outcomes[guest.name]["state"] == "complete"
        host.assert_on_bases(guest, first.bases[guest.name])
        assert guest.state() == "running"


def test_what_the_guest_wrote_meanwhile_is_kept(first: BackedUp) -> None:
    """The last number that the guest wrote while it was backed up is on each of its disks, whatever their kind."""
    for target in ("vda", "vdb", "vdc"):
        guest_io(first.counting, target, f"read -P {first.last_written} 0 512")


def test_all_disks_are_of_one_instant(host: Sources, first: BackedUp) -> None:
    """Of disks of three kinds, written in order while the backup began, no archived one is ahead of one before it."""
    restored, _ = host.restore_as(first.counting.name, "images-counted")
    disks = restored["disks"]
    a, b, c = (first_byte(disks[target], fmt) for target, fmt in (("vda", "qcow2"), ("vdb", "raw"), ("vdc", "raw")))
    assert a not in {0, first.last_written}
    assert [(a - b) % COUNTER, (b - c) % COUNTER] in ([0, 0], [1, 0], [0, 1])


@pytest.fixture(scope="module")
def copy(host: Sources, first: BackedUp) -> dict[str, Any]:
    """What a restore of `standing` beside it tells."""
    restored, _ = host.restore_as(first.standing.name, "images-copy")
    return restored


def test_a_block_device_comes_back_as_a_file(host: Sources, first: BackedUp, copy: dict[str, Any]) -> None:
    """A block device's whole content is archived, its size is right in the list, and its copy is a file like it."""
    image = Path(copy["disks"]["vdb"])
    assert image.is_file()
    assert image.stat().st_size == ODD_SIZE
    assert digest(image) == digest(first.device)
    assert host.archives(first.standing.name)[0]["disks"]["vdb"] == ODD_SIZE


def test_a_clone_comes_back_whole(first: BackedUp, copy: dict[str, Any]) -> None:
    """A clone's copy lies on its own copy of the template and reads like the original."""
    clone = copy["disks"]["vda"]
    below = run(["qemu-img", "info", "-U", clone], timeout=60).stdout
    assert str(Path(clone).parent) in below.partition("backing file: ")[2].splitlines()[0]
    assert_same(first.bases[first.standing.name]["vda"], clone)


def test_a_flattened_clone_needs_no_template(host: Sources, first: BackedUp) -> None:
    """With --flatten the copy is one image that reads like the original."""
    restored, _ = host.restore_as(first.standing.name, "images-flat", "--flatten")
    clone = restored["disks"]["vda"]
    assert "backing file:" not in run(["qemu-img", "info", clone], timeout=60).stdout
    assert_same(first.bases[first.standing.name]["vda"], clone)


def test_sparse_images_stay_sparse(host: Sources, first: BackedUp, copy: dict[str, Any]) -> None:
    """A large image of holes and discarded blocks takes no more room after its backup, nor does its copy."""
    original = host.folder / "sparse.raw"
    assert first.sparse_before < 16 * MIB
    assert used(original) <= first.sparse_before
    image = Path(copy["disks"]["vdc"])
    assert image.stat().st_size == LARGE
    assert used(image) <= first.sparse_before + MIB
    assert_same(str(original), str(image), image_format="raw")


def test_an_image_behind_a_link_is_stored(first: BackedUp, copy: dict[str, Any]) -> None:
    """Of an image that the definition names by a symbolic link the content is archived, not the link."""
    image = Path(copy["disks"]["vdd"])
    assert not image.is_symlink()
    assert_holds(image, "qcow2", [5])
    assert "//" in first.bases[first.standing.name]["vdd"]


def test_a_template_is_never_written(host: Sources, first: BackedUp) -> None:
    """A clone's template has the same content and time of change after a backup, and after a death and a recover."""
    assert fingerprint(first.template) == first.template_before
    arguments = ["--config", str(host.site.config), "backup", first.standing.name]
    dying = [sys.executable, "-m", "tests.e2e.killing", "after snapshot", *arguments]
    run(dying, timeout=180, check=False, env={"PREFECT_API_URL": host.api})
    assert sources(first.standing) != first.bases[first.standing.name]
    guest_io(first.standing, "vda", f"write -P 9 {2 * MIB} {MIB}")

    assert host.site.vmborg("recover").code == 0

    host.assert_on_bases(first.standing, first.bases[first.standing.name])
    assert fingerprint(first.template) == first.template_before
    first.standing.destroy()
    assert_holds(host.folder / "clone.qcow2", "qcow2", [1, 2, 9])


def assert_same(one: str, other: str, *, image_format: str = "qcow2") -> None:
    """A guest would read the same from both."""
    run(["qemu-img", "compare", "-U", "-f", image_format, "-F", image_format, one, other], timeout=120)
