"""Faults of the storage below the images and the overlays: full file systems, disks that cannot be read."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.process import run, spawn
from tests.e2e.held import let_go
from tests.e2e.observing import repeating
from tests.faults.rig import MIB, Rig, Running, make_rig
from tests.faults.settings import settings
from tests.faults.volumes import Volume, volume
from tests.guests import Boot, Daemons, DiskSpec, make_disk, wait_for
from tests.integration.bare import loop_device

pytestmark = pytest.mark.e2e

POLICY = {"min_free": "8MiB", "min_free_start": "16MiB"}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the disks are."""

    tight: Volume  # vdb, a sparse raw image, and its overlay
    small: Volume  # the overlay of vdc, which is a block device
    broken: Path  # as long as this file exists, vdd cannot be read
    disks: list[DiskSpec]


@pytest.fixture(scope="module")
def places(images: Path) -> Iterator[Places]:
    """Four disks: a qcow2 image, a raw image on a file system of its own, a block device, a disk that may fail."""
    root = images / "places"
    root.mkdir()
    with ExitStack() as stack:
        tight = stack.enter_context(volume(root / "tight", 256 * MIB))
        small = stack.enter_context(volume(root / "small", 96 * MIB))
        device = stack.enter_context(loop_device(root / "device", 64 * MIB))
        raw = make_disk(tight.folder / "b.raw", size=128 * MIB, format="raw", data=64 * MIB)
        disks = [
            DiskSpec("vda", make_disk(root / "a.qcow2", size=64 * MIB, data=4 * MIB)),
            DiskSpec("vdb", raw, format="raw"),
            DiskSpec("vdc", make_disk(device, size=64 * MIB, format="raw"), format="raw", kind="block"),
            DiskSpec("vdd", stack.enter_context(failing_device(root)), format="raw", kind="block"),
        ]
        yield Places(tight, small, root / "broken", disks)


@contextmanager
def failing_device(folder: Path) -> Iterator[Path]:
    """A block device of 8 MiB without a file system, every read of which fails while the file `broken` exists."""
    content, image = folder / "d.content", folder / "d.raw"
    content.write_bytes(os.urandom(8 * MIB))
    image.touch()
    server = ["nbdkit", "-s", "--filter=error", "file", str(content), "error=EIO", "error-pread-rate=100%"]
    argv = ["nbdfuse", str(image), "--command", *server, f"error-file={folder / 'broken'}"]
    with (folder / "nbdfuse.log").open("wb") as log, spawn(argv, stdout=log, stderr=log):
        wait_for(lambda: image.stat().st_size, timeout=30, what="nbdfuse")
        # Not the image itself: nobody knows how much room there is on its file system.
        device = run(["losetup", "--find", "--show", "--direct-io=on", str(image)], timeout=30).stdout.strip()
        yield Path(device)
        run(["losetup", "--detach", device], timeout=30)
        run(["fusermount3", "-u", str(image)], timeout=30)


@pytest.fixture(scope="module")
def whole_rig(  # noqa: PLR0917 - fixtures
    daemons: Daemons,
    boot: Boot,
    images: Path,
    prefect_server: str,
    places: Places,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    """Its disks are in `places`."""
    root = tmp_path_factory.mktemp("storage")
    how = {"boot": boot, "images": images, "api": prefect_server, "root": root}
    with make_rig("test-storage", daemons.uri, policy=POLICY, disks=places.disks, **how) as rig:
        yield rig


@pytest.fixture
def stored(rig: Rig, places: Places) -> Iterator[Rig]:
    """The rig whose overlays lie on the small file systems; at the end they are gone from there."""
    with settings(rig.site, hypervisor={"overlay_dir": str(places.small.folder)}):
        yield rig
    places.tight.free()
    places.small.free()
    rest = [path for each in (places.small, places.tight) for path in each.folder.glob("*vmborg-*")]
    assert not rest


def writes(rig: Rig, target: str, mebibytes: int) -> None:
    """The guest begins to write so much to a disk, and removes it when it is done."""
    file = f"/data/{target}/load"
    script = f"dd if=/dev/zero of={file} bs=1M count={mebibytes} conv=fsync; rm {file}"
    rig.guest.agent("guest-exec", path="sh", arg=["-c", script])


def wait_written(rig: Rig, target: str) -> None:
    """Wait until that is done."""
    rig.guest.wait_agent()
    gone = ["test", "!", "-e", f"/data/{target}/load"]
    wait_for(lambda: rig.guest.exec(gone)[0] == 0, timeout=60, what="the end of the guest's write")


def fill_at_once(rig: Rig, running: Running, full: Volume, target: str) -> None:
    """Fill the file system between two looks of the guard: the guest writes to this disk and is paused by qemu."""
    os.kill(running.child.pid, signal.SIGSTOP)
    full.fill()
    writes(rig, target, 32)
    rig.guest.wait_state("paused")
    os.kill(running.child.pid, signal.SIGCONT)


@pytest.mark.fault(
    "the overlays' file system fills up during the copy",
    seen="run Failed with WindowExceeded",
    does="ends the copy while there still is `min_free`, and puts the VM back: the guest is never paused",
    must="nothing; if it happens each time: more room, or back up when the guest writes less",
)
def test_overlays_fill_up(stored: Rig) -> None:
    """The guard ends a copy that would go on for ever; nobody sees the guest paused."""
    rig = stored
    states: set[str] = set()
    with (
        settings(rig.site, policy={"min_free": "56MiB", "min_free_start": "64MiB"}),
        repeating(lambda: states.add(rig.guest.state())),
    ):
        with rig.running() as running:
            rig.hold()  # borg is never let go
            writes(rig, "vdc", 32)
            call = running.wait()
        wait_written(rig, "vdc")
    error = rig.check_failed(call, "WindowExceeded")
    assert "bytes free" in error["evidence"]
    assert states == {"running"}
    rig.check()


@pytest.mark.fault(
    "somebody fills the overlays' file system at once; the base lies elsewhere",
    seen="qemu pauses the guest for some seconds; run Failed with WindowExceeded",
    does="ends the copy, commits the overlay into its base and resumes the guest, with the file system still full",
    must="make room for the next backup",
)
def test_overlays_are_filled(stored: Rig, places: Places) -> None:
    """The guest that qemu paused goes on by itself, and what it wrote arrives."""
    rig = stored
    with rig.running() as running:
        rig.hold()
        fill_at_once(rig, running, places.small, "vdc")
        call = running.wait()
    rig.check_failed(call, "WindowExceeded")
    wait_written(rig, "vdc")
    rig.check()


@pytest.mark.fault(
    "somebody fills the file system of overlay and base at once",
    seen="qemu pauses the guest; run Failed with CommitFailed; `status` and `doctor` critical",
    does="nothing is lost: with space the next recover, backup or reconcile commits and resumes the guest",
    must="make room: the guest itself can write nothing before that",
)
def test_overlays_and_bases_are_filled(stored: Rig, places: Places) -> None:
    """The VM stays paused on its overlay, and says so, until there is space; then recover heals all."""
    rig = stored
    with rig.running() as running:
        rig.hold()
        # What the overlay holds needs room in the sparse base.
        code, said = rig.guest.exec(["sh", "-c", "dd if=/dev/zero of=/data/vdb/first bs=1M count=12 && sync"], 60)
        assert code == 0, said
        fill_at_once(rig, running, places.tight, "vdb")
        call = running.wait()
    error = rig.check_failed(call, "CommitFailed")
    assert "bytes free" in error["evidence"]
    assert rig.guest.state() == "paused"
    rig.check_critical()
    assert "virsh resume" in rig.site.vmborg("doctor", rig.guest.name).stdout
    places.tight.free()
    rig.recover()
    wait_written(rig, "vdb")
    rig.guest.exec(["rm", "/data/vdb/first"])
    rig.check()


@pytest.mark.fault(
    "the overlays' file system is full before the backup",
    seen="run Failed with NoSpace; `doctor` critical",
    does="nothing: it fails before the guest is touched",
    must="make room",
)
def test_full_before(stored: Rig, places: Places) -> None:
    """Without `min_free_start` no backup begins."""
    rig = stored
    places.small.fill()
    error = rig.backup(code=1)["error"]
    assert error["type"] == "NoSpace"
    assert str(places.small.folder) in error["evidence"]
    assert error["remedy"]
    rig.check()
    doctor = rig.site.vmborg("doctor", rig.guest.name)
    assert doctor.code == 2
    assert "free some space" in doctor.stdout
    assert rig.archives() == rig.earlier


@pytest.mark.fault(
    "a disk gives I/O errors while it is read",
    seen="run Failed with ArchiveIncomplete; the evidence names the image",
    does="keeps no archive of it; puts the VM back",
    must="look at that storage",
)
def test_a_disk_cannot_be_read(stored: Rig, places: Places) -> None:
    """An image that borg cannot read makes no archive, good or unfinished."""
    rig = stored
    with rig.running() as running:
        borg = rig.hold()
        places.broken.touch()
        run(["blockdev", "--flushbufs", rig.bases["vdd"]], timeout=30)  # else the kernel remembers what it holds
        let_go(borg)
        call = running.wait()
    try:
        error = rig.check_failed(call, "ArchiveIncomplete")
        assert rig.bases["vdd"] in error["evidence"]
        assert "Input/output error" in error["evidence"]
        assert not rig.unfinished()
        rig.check()
    finally:
        places.broken.unlink()
