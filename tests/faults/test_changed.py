"""Faults that only `read: changed` can meet: its mount, its bitmaps, its checkpoints, the rights that it needs."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.process import run as run_program
from infra.qcow2.image import Qcow2Image
from tests.e2e.held import children, command, gone, let_go
from tests.faults.commits import load, unload
from tests.faults.rig import MIB, Rig, kill, make_rig
from tests.faults.settings import settings
from tests.faults.test_guest import boot as boot_guest
from tests.faults.volumes import Volume, volume
from tests.guests import Boot, Daemons, DiskSpec, make_disk, virsh
from tests.integration.segments.images import drop_bitmaps
from tests.integration.vmborg import VMBORG, Call

pytestmark = pytest.mark.e2e

VIEW = "infra.segments.serve"


@pytest.fixture(scope="module")
def place(images: Path) -> Iterator[Volume]:
    """The file system of the disk vda."""
    with volume(images / "changed", 512 * MIB) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def whole_rig(  # noqa: PLR0917 - fixtures
    daemons: Daemons,
    boot: Boot,
    images: Path,
    prefect_server: str,
    place: Volume,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    """A disk whose changes are known, on a file system of its own, and a raw one, which is read whole."""
    raw = make_disk(images / "changed.raw", size=32 * MIB, format="raw", data=4 * MIB)
    disks = [
        DiskSpec("vda", make_disk(place.folder / "a.qcow2", size=256 * MIB, data=16 * MIB)),
        DiskSpec("vdb", raw, format="raw"),
    ]
    root = tmp_path_factory.mktemp("changed")
    how = {"boot": boot, "images": images, "api": prefect_server, "root": root}
    with make_rig("test-changed", daemons.uri, disks=disks, **how) as rig:
        yield rig


def how_read(rig: Rig) -> dict[str, Any]:
    """A backup that must end well; what it tells of vda."""
    outcome = rig.backup()
    assert outcome["state"] == "complete"
    return next(each for each in outcome["result"]["disks"] if each["target"] == "vda")


def held_with_its_view(rig: Rig, run: int) -> tuple[int, int]:
    """The borg of this run, held while it reads what the guest wrote to vda, and the process that shows it."""
    borg = rig.hold("vda")
    (view,) = [pid for pid in children(run) if VIEW in command(pid)]
    return borg, view


@pytest.mark.fault(
    "kill -9 of the process that holds the mount and shows the disks to borg, in mid-copy",
    seen="run Failed with ArchiveIncomplete",
    does="keeps no archive of it; puts the VM back; the kernel takes the mount away",
)
def test_the_view_is_killed(rig: Rig) -> None:
    """No archive lacks a segment, and the next backup goes by the former checkpoint."""
    load(rig, 24)
    with rig.running() as run:
        borg, view = held_with_its_view(rig, run.child.pid)
        kill(view, signal.SIGKILL)
        let_go(borg)
        call = run.wait()
    rig.check_failed(call, "ArchiveIncomplete")
    rig.check()
    assert not rig.unfinished()
    assert how_read(rig)["mode"] == "incremental"
    unload(rig)


@pytest.mark.fault(
    "the process that shows the disks to borg stands still in mid-copy",
    seen="run Failed with WindowExceeded",
    does="kills it at `create_deadline`, without which borg could not be ended; puts the VM back",
)
def test_the_view_stands_still(rig: Rig) -> None:
    """The guest does not wait on its overlay for a mount that does not answer."""
    load(rig, 24)
    with settings(rig.site, policy={"create_deadline": "10s"}), rig.running() as run:
        borg, view = held_with_its_view(rig, run.child.pid)
        kill(view, signal.SIGSTOP)
        let_go(borg)
        call = run.wait()
    rig.check_failed(call, "WindowExceeded")
    assert gone(view)
    assert gone(borg)
    rig.check()
    unload(rig)


def delete_checkpoints(rig: Rig, *options: str) -> None:
    """What an administrator does who does not know whose they are."""
    names = virsh(rig.guest.uri, "checkpoint-list", rig.guest.uuid, "--name").split()
    assert len(names) == 2  # of the last backup, and of this one
    for name in names:
        virsh(rig.guest.uri, "checkpoint-delete", rig.guest.uuid, name, *options)


@pytest.mark.fault(
    "somebody deletes vmborg's checkpoints while borg reads (`virsh checkpoint-delete`)",
    seen="run Failed with ArchiveIncomplete, for qemu writes to the image that borg reads",
    does="keeps no archive of it; puts the VM back; the next backup reads everything",
)
def test_checkpoints_are_deleted(rig: Rig) -> None:
    """An image that moves while it is read is not trusted, and bits that are gone are not missed."""
    with rig.running() as run:
        borg = rig.hold("vdb")
        delete_checkpoints(rig)
        let_go(borg)
        call = run.wait()
    error = rig.check_failed(call, "ArchiveIncomplete")
    assert rig.bases["vda"] in error["evidence"]
    rig.check()
    told = how_read(rig)
    assert (told["mode"], "is gone" in told["reason"]) == ("full", True)


@pytest.mark.fault(
    "somebody deletes only what libvirt knows of them (`virsh checkpoint-delete --metadata`)",
    seen="run Completed",
    does="goes on reading; the next backup goes by the bitmap, which qemu keeps all the same",
    must="nothing; `vmborg recover --drop-checkpoints VM`, with the VM shut off, removes such bitmaps",
)
def test_checkpoints_are_forgotten(rig: Rig) -> None:
    """A bitmap counts without libvirt, and does not stay for ever."""
    with rig.running() as run:
        borg = rig.hold("vdb")
        delete_checkpoints(rig, "--metadata")
        load(rig, 8)
        let_go(borg)
        call = run.wait()
    assert call.code == 0, call.stderr
    rig.check()
    assert how_read(rig)["mode"] == "incremental"
    unload(rig)
    rig.guest.destroy()
    rig.site.ok("recover", "--drop-checkpoints", rig.guest.name)
    with Qcow2Image(rig.bases["vda"]) as image:
        assert image.bitmaps() == ()
    boot_guest(rig.guest)


@pytest.mark.fault(
    "somebody removes the dirty bitmap from the image of the shut-off VM (`qemu-img bitmap --remove`)",
    seen="run Completed; it tells that the bitmap is gone",
    does="reads everything",
)
def test_the_bitmap_is_removed(rig: Rig) -> None:
    """A full read, and then what changed again."""
    rig.guest.destroy()
    drop_bitmaps(Path(rig.bases["vda"]))
    boot_guest(rig.guest)
    told = how_read(rig)
    assert (told["mode"], "is gone" in told["reason"]) == ("full", True)
    assert how_read(rig)["mode"] == "incremental"


@pytest.mark.fault(
    "the images' file system is full when qemu ends and stores the dirty bitmap",
    seen="run Completed; it tells that qemu ended without storing the bitmap",
    does="reads everything",
)
def test_no_room_for_the_bitmap(rig: Rig, place: Volume) -> None:
    """A bitmap that was not stored is not believed."""
    rig.backup()
    load(rig, 24)  # nothing within the image is free any more
    place.fill()
    try:
        rig.guest.destroy()
    finally:
        place.free()
    boot_guest(rig.guest)
    told = how_read(rig)
    assert (told["mode"], "in use" in told["reason"]) == ("full", True)
    unload(rig)


NO_DEVICE = 'mount --make-rprivate / && mount --bind /dev/null /dev/fuse && exec "$@"'


@pytest.mark.parametrize(
    "place_without",
    [
        pytest.param(prefix, id=what.partition(" ")[0], marks=pytest.mark.fault(fault, seen=seen, does=does))
        for what, prefix in {
            "CAP_SYS_ADMIN (a container)": ["setpriv", "--bounding-set=-sys_admin"],
            "CAP_SYS_CHROOT (the unit of an earlier version)": ["setpriv", "--bounding-set=-sys_chroot"],
            "/dev/fuse that works": ["unshare", "-m", "sh", "-c", NO_DEVICE, "sh"],
        }.items()
        for fault, seen, does in [
            (
                f"vmborg runs without {what}",
                "run Completed; its result and `doctor` tell that disks are read whole, and why",
                "reads image files whole, as with `read: whole`",
            )
        ]
    ],
)
def test_a_place_where_nothing_can_be_mounted(rig: Rig, place_without: list[str]) -> None:
    """A backup does not fail for it, and does not hide it."""

    def vmborg(*words: str) -> Call:
        argv = [*place_without, str(VMBORG), "--config", str(rig.site.config), "--json", *words]
        done = run_program(argv, timeout=300, check=False, env={"PREFECT_API_URL": rig.site.api})
        return Call(done.returncode, done.stdout, done.stderr)

    call = vmborg("backup", "--", rig.guest.name)
    assert call.code == 0, call.stderr
    (told,) = [each for each in call.document["backups"][0]["result"]["disks"] if each["target"] == "vda"]
    assert (told["mode"], "peration not permitted" in told["reason"] or "EINVAL" in told["reason"]) == ("whole", True)
    archive = call.document["backups"][0]["result"]["archive"]
    assert rig.bases["vda"].lstrip("/") in {item.path for item in rig.site.repository.items(archive)}
    (found,) = [each for each in vmborg("doctor", rig.guest.name).document["findings"] if each["check"] == "read"]
    assert (found["health"], "read whole disks" in found["text"], bool(found["remedy"])) == ("warning", True, True)
    rig.check()
