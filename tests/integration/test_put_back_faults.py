"""Putting a domain back when something is in the way: foreign work, missing space, other users, other files."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import CommitFailed, DomainBusy, RecoveryFailed, SnapshotFailed
from infra.model import JournalEntry, Phase
from infra.process import run, spawn
from tests.guests import Daemons, DiskSpec, virsh, wait_for
from tests.integration.bare import MIB, World, assert_on_bases, digest, holds, small_filesystem

pytestmark = pytest.mark.integration


@pytest.fixture
def world(daemons: Daemons) -> Iterator[World]:  # noqa: ARG001 - must run
    """Images and domains of one test."""
    with World() as world:
        yield world


def test_a_commit_that_is_not_ready_in_time_goes_on(world: World) -> None:
    """At the deadline the error says so; the job is left to qemu, and the next call takes it over."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 4, size=8 * MIB)
    bare.slow_job(entry.overlays[0])
    with pytest.raises(CommitFailed, match="not ready in 1 s") as caught:
        bare.put_back(entry, commit_deadline=1)
    assert f"of {8 * MIB} bytes" in caught.value.evidence
    assert bare.sources() == {"vda": entry.overlays[0].path}
    bare.hurry("vda")
    bare.put_back(entry)
    assert_on_bases(bare, entry)


def test_a_limited_commit_hurries_at_its_deadline(world: World) -> None:
    """What copies as slowly as it was told ends soon after its time is over, without limit."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 4, size=12 * MIB)
    with pytest.raises(CommitFailed, match="not ready in 2 s"):
        bare.put_back(entry, commit_deadline=2, bandwidth=MIB)
    bare.put_back(entry, commit_deadline=20)
    assert_on_bases(bare, entry)
    assert bare.read("vda", 4, size=12 * MIB)


@contextmanager
def slow_device(folder: Path, *, seconds: int) -> Iterator[Path]:
    """A block device of 16 MiB whose every write takes so long."""
    content, image = folder / "slow.content", folder / "slow.raw"
    with content.open("wb") as file:
        file.truncate(16 * MIB)
    image.touch()
    server = ["nbdkit", "-s", "--filter=delay", "file", str(content), f"wdelay={seconds}"]
    with spawn(["nbdfuse", str(image), "--command", *server]):
        wait_for(lambda: image.stat().st_size, timeout=30, what="nbdfuse")
        device = run(["losetup", "--find", "--show", "--direct-io=on", str(image)], timeout=30).stdout.strip()
        try:
            yield Path(device)
        finally:
            run(["losetup", "--detach", device], timeout=60)
            run(["fusermount3", "-u", str(image)], timeout=60)


def test_a_pivot_that_does_not_happen_in_time_goes_on(world: World) -> None:
    """At its deadline the error says so and the guest runs on; the next call sees the pivot through."""
    device = world.enter(slow_device(world.folder, seconds=6))
    bare = world.bare(DiskSpec("vda", device, format="raw", kind="block")).define().start()
    entry = bare.snapshot()
    bare.write("vda", 4, size=MIB // 16)
    saved: list[JournalEntry] = []

    def write_again(entry: JournalEntry) -> None:
        """The commit was ready; qemu pivots only once this is copied too."""
        saved.append(entry)
        if entry.pivoting:
            bare.write("vda", 5, offset=MIB, size=MIB // 16)

    with pytest.raises(CommitFailed, match="pivot of disk vda did not happen in 1 s") as caught:
        bare.put_back(entry, pivot_deadline=1, save=write_again)
    assert "vmborg recover" in caught.value.remedy
    assert bare.state() == "running"
    assert bare.read("vda", 5, offset=MIB, size=MIB // 16)
    bare.put_back(saved[-1])
    assert_on_bases(bare, entry)
    assert bare.read("vda", 5, offset=MIB, size=MIB // 16)


def test_without_space_for_the_base_it_says_so_and_goes_on_later(world: World) -> None:
    """A sparse base that cannot grow fails its commit, not its neighbour's; with space freed both are put back."""
    small = world.enter(small_filesystem(world.folder, 24 * MIB))
    disk, other = world.disk("vda", "raw", folder=small), world.disk("vdb")
    bare = world.bare(disk, other).define().start()
    entry = bare.snapshot()
    bare.write("vda", 5, size=8 * MIB)
    bare.write("vdb", 6)
    filler = small / "filler"
    filler.write_bytes(bytes(max(0, free(small) - MIB)))

    with pytest.raises(CommitFailed) as caught:
        bare.put_back(entry)

    assert "bytes free" in caught.value.evidence
    assert bare.sources() == {"vda": entry.overlays[0].path, "vdb": str(other.path)}
    assert bare.read("vda", 5, size=8 * MIB)
    filler.unlink()
    bare.put_back(entry)
    assert_on_bases(bare, entry)
    bare.forget()
    assert holds(disk, 5)


def free(folder: Path) -> int:
    """Bytes."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_a_foreign_block_job_is_waited_for(world: World) -> None:
    """Somebody's copy of the disk is not disturbed: busy, and put back once it is over."""
    bare = world.bare(world.disk("vda")).create()
    entry = bare.snapshot()
    virsh(bare.uri, "blockcopy", bare.uuid, "vda", str(world.folder / "copy"), "--shallow", "--bandwidth", "1")
    with pytest.raises(DomainBusy, match="block job that is not ours"):
        bare.put_back(entry)
    assert bare.domain.block_job("vda") is not None
    bare.domain.abort_job("vda")
    bare.put_back(entry)
    assert bare.sources() == {"vda": entry.overlays[0].base}


def test_a_foreign_snapshot_is_left_alone(world: World) -> None:
    """With somebody's overlay on ours nothing is touched; once it is gone the domain is put back."""
    bare = world.bare(world.disk("vda")).define().start()
    entry = bare.snapshot()
    foreign = world.folder / "foreign.qcow2"
    disk = f"vda,snapshot=external,file={foreign}"
    virsh(bare.uri, "snapshot-create-as", bare.uuid, "--disk-only", "--no-metadata", "--diskspec", disk)
    before = digest(Path(entry.overlays[0].base))
    with pytest.raises(RecoveryFailed, match="another image on it"):
        bare.put_back(entry)
    assert bare.sources() == {"vda": str(foreign)}
    assert digest(Path(entry.overlays[0].base)) == before
    path = entry.overlays[0].path
    virsh(bare.uri, "blockcommit", bare.uuid, "vda", "--base", path, "--active", "--pivot", "--wait")
    bare.put_back(entry)
    assert_on_bases(bare, entry)


@pytest.mark.parametrize("through", ["definition", "header"])
def test_an_overlay_that_another_domain_uses_is_kept(world: World, through: str) -> None:
    """The domain is put back, the file stays while another domain's chain has it, and the error names that domain."""
    bare = world.bare(world.disk("vda")).define().start()
    entry = bare.snapshot()
    overlay = Path(entry.overlays[0].path)
    path = overlay
    if through == "header":
        path = world.folder / "clone.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", overlay.name, str(path)], timeout=30)
    other = world.bare(DiskSpec("vda", path)).define()
    saved: list[JournalEntry] = []

    with pytest.raises(RecoveryFailed, match=f"used by {other.name}"):
        bare.put_back(entry, save=saved.append)

    assert bare.sources() == {"vda": entry.overlays[0].base}
    assert overlay.exists()
    other.forget()
    bare.put_back(saved[-1])
    assert_on_bases(bare, entry)


def test_an_overlay_that_a_process_has_open_is_left_alone(world: World) -> None:
    """A domain that shut off is not put back under a process that writes to its overlay."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 7)
    bare.domain.destroy()
    overlay = entry.overlays[0].path
    with spawn(["qemu-io", "-f", "qcow2", overlay], stdin=True) as holder:
        wait_for(lambda: is_locked(overlay), timeout=20, what="the lock")
        with pytest.raises(RecoveryFailed, match="another process has it open"):
            bare.put_back(entry)
        holder.kill()
    bare.put_back(entry)
    assert bare.sources(inactive=True) == {"vda": str(disk.path)}
    assert holds(disk, 7)


def is_locked(path: str) -> bool:
    """Whether qemu's lock is on the image."""
    return run(["qemu-img", "info", "-f", "qcow2", path], timeout=30, check=False).returncode != 0


@pytest.mark.parametrize("content", ["overlay", "nothing"])
def test_what_a_failed_snapshot_left_is_removed(world: World, content: str) -> None:
    """A new overlay, or a file that qemu had only begun to make it of, is removed while the journal says prepared."""
    bare = world.bare(world.disk("vda")).define().start()
    entry = replace(bare.snapshot(), phase=Phase.PREPARED)
    bare.put_back(entry)
    overlay = entry.overlays[0]
    if content == "overlay":
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", overlay.base, overlay.path], timeout=30)
    else:
        Path(overlay.path).touch()
    assert len(bare.put_back(entry).actions) == 1
    assert_on_bases(bare, entry)


def test_a_file_that_is_not_the_overlay_is_kept(world: World) -> None:
    """An image on something else than the recorded base is nobody's to remove, and no snapshot goes over it."""
    bare = world.bare(world.disk("vda")).define().start()
    entry = replace(bare.snapshot(), phase=Phase.PREPARED)
    bare.put_back(entry)
    foreign = entry.overlays[0].path
    template = world.disk("other").path
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(template), foreign], timeout=30)
    before = digest(Path(foreign))
    with pytest.raises(SnapshotFailed, match="There is a file where an overlay would be"):
        bare.snapshot()
    with pytest.raises(RecoveryFailed, match="not the overlay that was made"):
        bare.put_back(entry)
    assert digest(Path(foreign)) == before


@pytest.mark.parametrize("how", ["started anew", "written to"])
def test_a_base_that_moved_on_is_not_rolled_back(world: World, how: str) -> None:
    """A transient domain's overlay is not committed over a base that somebody has used since."""
    disk = world.disk("vda")
    bare = world.bare(disk).create()
    entry = bare.snapshot()
    bare.write("vda", 8)
    bare.domain.destroy()
    assert disk.path
    if how == "started anew":
        bare.create()
    else:
        later = time.time() + 120
        os.utime(disk.path, (later, later))
    with pytest.raises(RecoveryFailed) as caught:
        bare.put_back(entry)
    assert "it holds data" in caught.value.brief
    assert Path(entry.overlays[0].path).exists()
    bare.forget()
    assert not holds(disk, 8)
