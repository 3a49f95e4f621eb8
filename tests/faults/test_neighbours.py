"""Whoever else works on a VM, or did: other backups, jobs, snapshots, tools, an administrator."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.checks import assert_on_bases, sources
from tests.e2e.held import let_go
from tests.faults.rig import MIB, Rig
from tests.faults.stopping import wait_stopped
from tests.guests import make_disk, virsh, wait_for
from tests.integration.bare import digest

pytestmark = pytest.mark.e2e

RUN_ID = "00c0ffee"


@pytest.mark.fault(
    "two backups of one VM at once",
    seen="the second run Failed with DomainBusy, which says who holds the VM since when; the first is Completed",
    does="one run a VM: whoever comes second leaves it alone",
)
def test_two_backups(rig: Rig) -> None:
    """The first is not disturbed by the second."""
    with rig.running() as first:
        borg = rig.hold()
        error = rig.backup(code=1)["error"]
        let_go(borg)
        call = first.wait()
    assert call.code == 0, call.stderr
    assert error["type"] == "DomainBusy"
    assert f"held by pid {first.child.pid} since" in error["evidence"]
    assert len(rig.archives()) == len(rig.earlier) + 1
    rig.check()


@contextmanager
def foreign_overlay(rig: Rig, target: str, *options: str) -> Iterator[Path]:
    """The disk is on an overlay of somebody else's for the length of the block."""
    overlay = rig.folder / f"{target}.somebody"
    disks = [f"{name},snapshot={f'external,file={overlay}' if name == target else 'no'}" for name in rig.bases]
    specs = [word for disk in disks for word in ("--diskspec", disk)]
    name = "before-upgrade"
    virsh(rig.guest.uri, "snapshot-create-as", rig.guest.uuid, name, "--disk-only", "--atomic", *options, *specs)
    try:
        yield overlay
    finally:
        commit = ("--base", rig.bases[target], "--active", "--pivot", "--wait")
        virsh(rig.guest.uri, "blockcommit", rig.guest.uuid, target, *commit)
        overlay.unlink()


def backed_up_with(rig: Rig, target: str, overlay: Path) -> None:
    """A backup takes the overlay and its base into the archive; the VM stays on it, and the base is not written to."""
    base = rig.bases[target]
    before = digest(Path(base))
    outcome = rig.backup()
    assert outcome["state"] == "complete"
    assert digest(Path(base)) == before
    stored = {item.path for item in rig.site.repository.items(outcome["result"]["archive"])}
    assert {str(overlay).lstrip("/"), base.lstrip("/")} <= stored
    assert_on_bases(rig.site, rig.guest, {**rig.bases, target: str(overlay)}, [rig.folder])
    rig.check_counts()


@pytest.mark.fault(
    "a snapshot of somebody else exists",
    seen="nothing; `doctor` names it",
    does="archives the snapshot's overlay with what lies below it; the VM stays on it, libvirt's note of it stays",
)
def test_a_foreign_snapshot(rig: Rig) -> None:
    """A backup in between changes nothing about the snapshot."""
    with foreign_overlay(rig, "vda") as overlay:
        backed_up_with(rig, "vda", overlay)
        assert virsh(rig.guest.uri, "snapshot-list", rig.guest.uuid, "--name") == "before-upgrade"
        assert "snapshots of somebody else: before-upgrade" in rig.site.vmborg("doctor", rig.guest.name).stdout
    virsh(rig.guest.uri, "snapshot-delete", rig.guest.uuid, "before-upgrade", "--metadata")
    rig.check()


@pytest.mark.fault(
    "another tool died and left the VM on its overlay",
    seen="nothing; `doctor` says on what the disk lies",
    does="archives that overlay with what lies below it, and never touches it: it holds what the guest wrote",
)
def test_a_foreign_overlay(rig: Rig) -> None:
    """An overlay that is not ours is somebody's disk."""
    with foreign_overlay(rig, "vdc", "--no-metadata") as overlay:
        backed_up_with(rig, "vdc", overlay)
        said = rig.site.vmborg("doctor", rig.guest.name).stdout
        assert f"vdc lies on {rig.bases['vdc']}: a linked clone, or an overlay of another tool" in said
        assert rig.site.vmborg("recover").code == 0
        assert sources(rig.guest)["vdc"] == str(overlay)
    rig.check()


@contextmanager
def checkpoint(rig: Rig) -> Iterator[str]:
    """What virtnbdbackup leaves for its next incremental backup: a checkpoint with a bitmap in each qcow2 disk."""
    name = "virtnbdbackup.0"
    kinds = {"vda": "bitmap", "vdb": "no", "vdc": "bitmap"}
    specs = [word for disk, kind in kinds.items() for word in ("--diskspec", f"{disk},checkpoint={kind}")]
    virsh(rig.guest.uri, "checkpoint-create-as", rig.guest.uuid, name, *specs)
    try:
        yield name
    finally:
        virsh(rig.guest.uri, "checkpoint-delete", rig.guest.uuid, name)


def incremental(rig: Rig, since: str) -> Path:
    """An incremental backup of vda as that tool lets libvirt do it: the image of what was written since."""
    target, request = rig.folder / "incremental.qcow2", rig.folder / "request.xml"
    request.write_text(
        f"<domainbackup mode='push'><incremental>{since}</incremental><disks>"
        f"<disk name='vda' type='file'><driver type='qcow2'/><target file='{target}'/></disk>"
        "<disk name='vdb' backup='no'/><disk name='vdc' backup='no'/></disks></domainbackup>",
        encoding="ascii",
    )
    virsh(rig.guest.uri, "backup-begin", rig.guest.uuid, str(request))
    wait_for(
        lambda: "None" in virsh(rig.guest.uri, "domjobinfo", rig.guest.uuid), timeout=60, what="the incremental backup"
    )
    assert "Completed" in virsh(rig.guest.uri, "domjobinfo", rig.guest.uuid, "--completed")
    request.unlink()
    return target


@pytest.mark.fault(
    "checkpoints of virtnbdbackup exist",
    seen="nothing; `doctor` names them",
    does="reads whole images and makes no checkpoint, which that tool would refuse; its next incremental backup holds "
    "what the guest wrote on our overlay too",
)
def test_checkpoints_of_another_tool(rig: Rig) -> None:
    """Neither tool takes the other's changes away."""
    with checkpoint(rig) as name:
        with rig.running() as running:
            borg = rig.hold()
            rig.guest.exec(["sh", "-c", "dd if=/dev/urandom of=/data/vda/load bs=1M count=8 && sync"], 60)
            let_go(borg)
            call = running.wait()
        assert {each["mode"] for each in call.document["backups"][0]["result"]["disks"]} == {"whole"}
        assert virsh(rig.guest.uri, "checkpoint-list", rig.guest.uuid, "--name") == name
        assert f"checkpoints of somebody else: {name}" in rig.site.vmborg("doctor", rig.guest.name).stdout
        image = incremental(rig, name)
        assert image.stat().st_blocks * 512 >= 8 * MIB
        image.unlink()
    rig.guest.exec(["rm", "/data/vda/load"])
    rig.check()


@pytest.mark.fault(
    "there is a file where the overlay would be",
    seen="run Failed with SnapshotFailed, which names the file; `doctor` names it too",
    does="fails before the guest is touched, and leaves that file alone",
    must="nothing for the next backup, whose overlays have other names; look what the file is",
)
def test_a_file_with_the_overlays_name(rig: Rig) -> None:
    """Nothing is written over."""
    base = Path(rig.bases["vda"])
    taken = base.with_name(f"{base.name}.vda.vmborg-{RUN_ID}.qcow2")
    taken.write_text("somebody's", encoding="ascii")
    with rig.running(program=f"tests.faults.run_id {RUN_ID}") as running:
        call = running.wait()
    error = rig.check_failed(call, "SnapshotFailed")
    assert str(taken) in error["brief"]
    assert taken.read_text(encoding="ascii") == "somebody's"
    assert f"{taken} looks like an overlay" in rig.site.vmborg("doctor", rig.guest.name).stdout
    taken.unlink()
    rig.check()


@contextmanager
def plugged(rig: Rig, target: str) -> Iterator[str]:
    """A disk more for the length of the block."""
    image = make_disk(rig.folder / "plugged.qcow2", size=16 * MIB, formatted=False)
    how = ("--subdriver", "qcow2", "--persistent")
    virsh(rig.guest.uri, "attach-disk", rig.guest.uuid, str(image), target, *how)
    try:
        yield str(image)
    finally:
        # The guest has to agree, after a while.
        virsh(rig.guest.uri, "detach-disk", rig.guest.uuid, target, "--persistent")
        wait_for(lambda: target not in sources(rig.guest), timeout=30, what="the end of the disk")
        image.unlink()


@pytest.mark.fault(
    "a disk is plugged in between the look at the VM and its snapshot",
    seen="nothing; the archive has the new disk",
    does="sees it before the snapshot and begins anew, with that disk; no disk is ever left on an overlay of libvirt's",
)
def test_a_disk_is_plugged_in(rig: Rig) -> None:
    """A green run has the disk in its archive, and the disk is on no overlay of anybody's."""
    with rig.running(program="tests.faults.stopping after preflight") as running:
        wait_stopped(running.child.pid)
        files = set(rig.folder.iterdir())
        with plugged(rig, "vdd") as image:
            os.kill(running.child.pid, signal.SIGCONT)
            call = running.wait()
            now = {**rig.bases, "vdd": image}
            assert sources(rig.guest) == now
            assert sources(rig.guest, inactive=True) == now
            assert set(rig.folder.iterdir()) == files | {Path(image)}
    assert call.code == 0, call.stderr
    archive = call.document["backups"][0]["result"]["archive"]
    stored = {item.path for item in rig.site.repository.items(archive)}
    segments = {f"disks/{target}/00000000" for target, path in now.items() if path.endswith(".qcow2")}
    assert len(segments) == 3
    assert segments | {rig.bases["vdb"].lstrip("/")} <= stored
    rig.check()
