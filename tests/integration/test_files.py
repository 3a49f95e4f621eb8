"""Single files out of an archive, on a real appliance: file systems made on the host, LVM by guestfish."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.errors import ArchiveIncomplete
from infra.errors_views import GuestPathError
from infra.process import run, spawn
from tasks.files.get import bring
from tasks.files.run import Source, get_files, mount_files, opened_tree, unmount_files
from tasks.restore.workspace import locked_directory
from tasks.views.recover import recover_views
from tests.guests import Daemons, DiskSpec, image_dir, wait_for
from tests.integration.restoring import MIB, RestoreHost, restore_host
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.integration

_LVM = """
disk-create {0} qcow2 48M
add {0} format:qcow2
run
pvcreate /dev/sda
vgcreate vg0 /dev/sda
lvcreate data vg0 32
mkfs ext4 /dev/vg0/data
mount /dev/vg0/data /
write /lvm.txt lvm
"""
_CONTENTS = {
    "/vda1/etc/owned": "mine",
    "/vda2/ntfs.txt": "ntfs",
    "/vg0-data/lvm.txt": "lvm",
    "/vdb1/xfs.txt": "xfs",
    "/vdb2/btrfs.txt": "btrfs",
}


def ext4(work: Path) -> Path:
    """With owners, modes, links, a hole and a name that is not ASCII."""
    etc = work / "ext4/etc"
    (etc / "deep").mkdir(parents=True)
    (etc / "deep/snöw ☃").write_text("a snowman", encoding="utf-8")
    (etc / "owned").write_text("mine", encoding="ascii")
    (etc / "owned").chmod(0o640)
    os.chown(etc / "owned", 1234, 4321)
    (etc / "absolute").symlink_to("/etc/owned")
    (etc / "outside").symlink_to("../../../../../../../../../tmp")
    (etc / "deep/hard").hardlink_to(etc / "owned")
    (etc / "sparse").touch()
    os.truncate(etc / "sparse", 20 * MIB)
    return made(work, "ext4.img", 40, ["mkfs.ext4", "-q", "-d", str(work / "ext4")])


def ntfs(work: Path) -> Path:
    """With one file."""
    image = made(work, "ntfs.img", 16, ["mkntfs", "-F", "-Q", "-q"])
    (work / "ntfs.txt").write_text("ntfs", encoding="ascii")
    run(["ntfscp", str(image), str(work / "ntfs.txt"), "ntfs.txt"], timeout=60)
    return image


def xfs(work: Path) -> Path:
    """With one file."""
    (work / "xfs.txt").write_text("xfs", encoding="ascii")
    (work / "proto").write_text(f"/dev/null\n0 0\nd--755 0 0\nxfs.txt ---644 0 0 {work}/xfs.txt\n$\n")
    return made(work, "xfs.img", 320, ["mkfs.xfs", "-q", "-p", str(work / "proto")])


def btrfs(work: Path) -> Path:
    """With one file."""
    (work / "btrfs").mkdir()
    (work / "btrfs/btrfs.txt").write_text("btrfs", encoding="ascii")
    return made(work, "btrfs.img", 128, ["mkfs.btrfs", "-q", "--rootdir", str(work / "btrfs")])


def made(work: Path, name: str, size: int, command: list[str]) -> Path:
    """A file of so many MiB with a file system."""
    image = work / name
    image.touch()
    os.truncate(image, size * MIB)
    run([*command, str(image)], timeout=120)
    return image


def partitioned(disk: Path, parts: list[Path]) -> None:
    """A disk with a partition for each of these file systems."""
    raw = disk.with_suffix(".raw")
    raw.touch()
    os.truncate(raw, sum(part.stat().st_size for part in parts) + 4 * MIB)
    table, start = "label: gpt\n", 1
    for part in parts:
        size = part.stat().st_size // MIB
        table += f"start={start}MiB, size={size}MiB\n"
        run(["dd", f"if={part}", f"of={raw}", "bs=1M", f"seek={start}", "conv=notrunc,sparse"], timeout=120)
        start += size
    run(["sfdisk", "-q", str(raw)], input_text=table, timeout=60)
    run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], timeout=120)
    raw.unlink()


@pytest.fixture(scope="module")
def host(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with an archive of one VM of two disks, in segments."""
    assert daemons is not None
    with image_dir("files") as root, restore_host(root) as place:
        disks = [place.images / f"{name}.qcow2" for name in ("a", "b", "c")]
        work = place.root / "work"
        work.mkdir()
        partitioned(disks[0], [ext4(work), ntfs(work)])
        partitioned(disks[1], [xfs(work), btrfs(work)])
        settings = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
        run(["guestfish"], input_text=_LVM.format(disks[2]), env=settings, timeout=600)
        specs = [DiskSpec(target, disk) for target, disk in zip(("vda", "vdb", "vdc"), disks, strict=True)]
        place.factory.make(place.define(specs), segments=True)
        (place.root / "state" / "views").mkdir(mode=0o700)
        (place.root / "state" / "views" / "appliance-without-kvm").touch()
        yield place


def source(host: RestoreHost) -> Source:
    """The VM's newest archive, by disk: it has no operating system."""
    return Source(f"{host.prefix}-vm", by_disk=True)


def views(host: RestoreHost) -> list[str]:
    """What is left of views."""
    return sorted(path.name for path in (host.root / "state" / "views").iterdir())


def say(_text: str) -> None:
    """Nobody listens."""


def test_every_file_system_gives_its_files(host: RestoreHost, tmp_path: Path) -> None:
    """ext4, NTFS, LVM, XFS and btrfs of two disks; modes, owners, links, holes and names are kept.

    Of files that were brought before one that is not there, nothing is left.
    """
    to = tmp_path / "got"
    paths = [*_CONTENTS, "/vda1/etc"]
    with opened_tree(host.config, source(host), say) as (chosen, appliance, _tree):
        assert "snöw ☃" in appliance.do("ll", "/vda1/etc/deep")
        got = bring(appliance, paths, to, chosen.work)
        with pytest.raises(GuestPathError, match="/vda1/nothing"):
            bring(appliance, ["/vdb1", "/vda1/nothing"], tmp_path / "nothing", chosen.work)
    assert list((tmp_path / "nothing").iterdir()) == []
    assert {path: (to / Path(path).name).read_text() for path in _CONTENTS} == _CONTENTS
    owned, sparse = (to / "etc/owned").stat(), (to / "etc/sparse").stat()
    assert (owned.st_uid, owned.st_gid, stat.S_IMODE(owned.st_mode), owned.st_nlink) == (1234, 4321, 0o640, 2)
    assert (sparse.st_size, sparse.st_blocks) == (20 * MIB, 0)
    assert (to / "etc/deep/snöw ☃").read_text(encoding="utf-8") == "a snowman"
    assert (to / "etc/absolute").readlink() == Path("/etc/owned")
    assert (to / "etc/deep/hard").samefile(to / "etc/owned")
    assert got.files == len(_CONTENTS) + 6
    assert views(host) == ["appliance-without-kvm"]


def test_a_killed_get_leaves_nothing(host: RestoreHost, tmp_path: Path) -> None:
    """After `recover` there is no mount, no appliance, no entry; the next call takes away what came of the files."""
    to = tmp_path / "got"
    words = [str(VMBORG), "--config", str(host.config_path), "files", f"{host.prefix}-vm", "--disks", "get"]
    with spawn([*words, "/vda1/etc", "/vdb1/xfs.txt", "--to", str(to)]) as get:
        wait_for(lambda: list(to.glob(".vmborg-get-*")), timeout=120, what="files", interval=0.005)
        (number,) = [path.stem for path in (host.root / "state" / "views").glob("*.lock")]
        assert holding(number)
        os.kill(get.pid, signal.SIGKILL)
    recovered = wait_for(lambda: recover_views(host.config), timeout=30, what="the lock of the dead call")
    assert [each.error for each in recovered] == [""]
    wait_for(lambda: not holding(number), timeout=30, what="the end of every process of it")
    assert number not in Path("/proc/self/mounts").read_text("utf-8")
    assert views(host) == ["appliance-without-kvm"]
    with locked_directory(to, prefix=".vmborg-get-") as another:  # of a call that is alive
        got = run([*words, "/vdb1/xfs.txt", "--to", str(to)], timeout=300)
        assert {path.name for path in to.iterdir()} == {"xfs.txt", another.name}, got.stderr


def holding(word: str) -> list[int]:
    """Processes that were started with this word in their arguments."""
    started = psutil.process_iter(["cmdline"])
    return [process.pid for process in started if any(word in each for each in process.info["cmdline"] or ())]


def test_a_damaged_archive_gives_an_error(host: RestoreHost, tmp_path: Path) -> None:
    """Where the repository does not hold what it should that is said; no file comes, and nothing stays."""
    (largest,) = sorted((host.root / "repository/data").rglob("[0-9]*"), key=lambda path: path.stat().st_size)[-1:]
    sound = largest.read_bytes()
    try:
        damaged = bytearray(sound)
        for place in range(len(damaged) // 8, len(damaged) * 7 // 8, 512):  # what it begins and ends with is whole
            damaged[place] ^= 0xFF
        largest.write_bytes(damaged)
        with pytest.raises(ArchiveIncomplete, match="damaged"):
            get_files(host.config, source(host), ["/vda1/etc"], tmp_path / "got", say=say)
    finally:
        largest.write_bytes(sound)
    assert not (tmp_path / "got").exists() or not list((tmp_path / "got").iterdir())
    assert views(host) == ["appliance-without-kvm"]


def test_all_files_are_shown_until_they_are_unmounted(host: RestoreHost, tmp_path: Path) -> None:
    """A mount outlives the call; `umount` takes everything away."""
    shown = mount_files(host.config, source(host), tmp_path / "mnt", say=say)
    assert set(shown.file_systems) == {"/vda1", "/vda2", "/vg0-data", "/vdb1", "/vdb2"}
    assert (tmp_path / "mnt/vdb1/xfs.txt").read_text() == "xfs"
    unmount_files(host.config, tmp_path / "mnt")
    assert list((tmp_path / "mnt").iterdir()) == []
    assert views(host) == ["appliance-without-kvm"]
