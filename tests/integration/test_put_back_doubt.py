"""Putting a domain back where it is easy to be wrong about what happened: nothing that a guest wrote is lost."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.config.load import load
from infra.errors import CommandTimedOut, CommitFailed, DomainStateChanged, RecoveryFailed
from infra.hypervisor.inspect import inspect
from infra.hypervisor.overlay_file import stamp
from infra.hypervisor.overlays import is_overlay
from infra.hypervisor.qemu_process import life_of
from infra.hypervisor.snapshot import overlay_path, snapshot_xml, strays, take_snapshot
from infra.journal.store import Journal
from infra.model import JournalEntry, Overlay, Phase
from infra.process import run, spawn
from tasks.recovery import recover_domains
from tests.guests import Daemons, wait_for
from tests.integration.bare import MIB, Bare, World, assert_on_bases, holds, image_holds, small_filesystem
from tests.integration.hosting import Host

pytestmark = pytest.mark.integration


@pytest.fixture
def world(daemons: Daemons) -> Iterator[World]:  # noqa: ARG001 - must run
    """Images and domains of one test."""
    with World() as world:
        yield world


def qemu(bare: Bare) -> int:
    """The process id of its qemu."""
    return int(life_of(bare.uuid).split()[1])


def test_each_run_of_a_domain_has_a_life_of_its_own(world: World) -> None:
    """It lasts as long as the qemu, whatever is asked of it, and the next start has another one."""
    bare = world.bare(world.disk("vda")).define()
    assert life_of(bare.uuid) == ""
    first = life_of(bare.start().uuid)
    assert first
    assert life_of(bare.uuid) == first
    bare.domain.destroy()
    assert life_of(bare.uuid) == ""
    assert life_of(bare.start().uuid) not in ("", first)


def planned(bare: Bare, target: str, disk: Path) -> JournalEntry:
    """What the journal says right before the snapshot."""
    entry = bare.snapshot()
    bare.put_back(entry)
    [overlay] = entry.overlays
    assert (overlay.target, overlay.base) == (target, str(disk))
    return replace(entry, phase=Phase.PREPARED)


def is_busy(bare: Bare) -> bool:
    """Whether a call holds the domain."""
    try:
        run(["virsh", "-c", bare.uri, "blockjob", bare.uuid, "vda", "--info"], timeout=1)
    except CommandTimedOut:
        return True
    return False


def test_a_snapshot_under_way_is_waited_for(world: World) -> None:
    """A dead run's snapshot that qemu has not taken yet is not overlooked: the domain is put back after it."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    assert disk.path
    entry = planned(bare, "vda", disk.path)
    request = world.folder / "snapshot.xml"
    path = entry.overlays[0].path
    disk_xml = f"<disk name='vda' snapshot='external'><source file='{path}'/></disk>"
    request.write_text(f"<domainsnapshot><disks>{disk_xml}</disks></domainsnapshot>")
    options = ["--disk-only", "--atomic", "--no-metadata"]
    process = qemu(bare)
    os.kill(process, signal.SIGSTOP)
    try:
        with spawn(["virsh", "-c", bare.uri, "snapshot-create", bare.uuid, str(request), *options]) as snapshot:
            wait_for(lambda: is_busy(bare), timeout=20, what="the snapshot")
            recovery = threading.Thread(target=bare.put_back, args=(entry,))
            recovery.start()
            recovery.join(2)
            assert recovery.is_alive()
            os.kill(process, signal.SIGCONT)
            assert snapshot.wait(60) == 0
            recovery.join(60)
            assert not recovery.is_alive()
    finally:
        os.kill(process, signal.SIGCONT)
    assert_on_bases(bare, entry)


@pytest.mark.parametrize("last", ["overlay", "base"])
def test_a_pivot_that_nobody_saw(world: World, last: str) -> None:
    """The guest ended after a pivot was asked for: its overlay is committed only if it was written to last."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 2)
    asked = replace(entry, phase=Phase.PUTTING_BACK, pivoting=(("vda", life_of(bare.uuid)),))
    bare.domain.destroy()
    assert disk.path
    write_offline(disk.path if last == "base" else Path(entry.overlays[0].path), 3)
    if last == "overlay":
        bare.put_back(asked)
        assert_on_bases(bare, entry)
        assert holds(disk, 3)
        return
    with pytest.raises(RecoveryFailed, match="may have been moved to"):
        bare.put_back(asked)
    assert holds(disk, 3)
    assert image_holds(entry.overlays[0].path, "qcow2", 2)


def write_offline(path: Path, byte: int) -> None:
    """Write where no guest has it open."""
    run(["qemu-io", "-f", "qcow2", "-c", f"write -P {byte} 0 {MIB}", str(path)], timeout=60)


def test_what_was_settled_may_be_written_to_again(world: World) -> None:
    """An overlay on which somebody started the domain once more holds new data: it is committed, not removed."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    path = entry.overlays[0].path
    settled = replace(entry, phase=Phase.PUTTING_BACK, settled=(("vda", *stamp(path)),))
    bare.write("vda", 6)
    bare.domain.destroy()
    bare.put_back(settled)
    assert_on_bases(bare, entry)
    assert holds(disk, 6)


def test_a_full_disk_is_told_as_such(world: World) -> None:
    """An offline commit without space is not mistaken for a lock, whatever the folder is called."""
    folder = world.enter(small_filesystem(world.folder, 24 * MIB)) / "block lock"
    folder.mkdir()
    disk = world.disk("vda", "raw", folder=folder)
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 5, size=8 * MIB)
    bare.domain.destroy()
    filler = folder / "filler"
    with filler.open("wb") as file:
        file.write(bytes(max(0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - 256 * 1024)))
    with pytest.raises(CommitFailed) as caught:
        bare.put_back(entry)
    assert "No space left" in caught.value.evidence
    assert "space" in caught.value.remedy
    filler.unlink()
    bare.put_back(entry)
    assert_on_bases(bare, entry)


def test_one_that_hangs_does_not_hold_up_the_rest(world: World, tmp_path: Path) -> None:
    """While one domain's qemu does not answer, another one is put back."""
    host = Host(tmp_path, world.folder, world.hypervisor.uri)
    config = load(host.config)
    journal = Journal(config.state.journal)
    hung, other = (world.bare(world.disk("vda")).define().start() for _ in range(2))
    entries = [bare.snapshot() for bare in (hung, other)]
    for entry in entries:
        journal.write(entry)
    process = qemu(hung)
    os.kill(process, signal.SIGSTOP)
    try:
        recovery = threading.Thread(target=recover_domains, args=(config,))
        recovery.start()
        wait_for(lambda: journal.read(other.uuid) is None, timeout=25, what="the other domain")
        assert_on_bases(other, entries[1])
        assert journal.read(hung.uuid) is not None
    finally:
        os.kill(process, signal.SIGCONT)
    recovery.join(60)
    assert not recovery.is_alive()
    assert_on_bases(hung, entries[0])


def test_the_overlay_of_a_disk_plugged_in_at_the_last_moment_is_ours(world: World) -> None:
    """libvirt gives a disk that the request does not name an overlay too: it is returned, and put back as ours."""
    first, late = world.disk("vda"), world.disk("vdb")
    bare = world.bare(first, late).define().start()
    facts = inspect(bare.domain, exclude_disks=())
    known = replace(facts, disks=facts.disks[:1])
    [disk] = known.covered
    path = overlay_path(disk.base, "vda", run_id="00c0ffee", overlay_dir=world.folder)
    overlay = Overlay("vda", disk.base.path, disk.base.kind, "qcow2", path)
    with pytest.raises(DomainStateChanged, match="vdb"):
        take_snapshot(bare.domain, known, [overlay], run_id="00c0ffee")
    assert bare.sources() == {"vda": str(first.path), "vdb": str(late.path)}
    bare.domain.snapshot(snapshot_xml(known, [overlay], run_id="00c0ffee"))

    [stray] = strays(bare.domain.live(), [overlay], run_id="00c0ffee")

    assert (stray.target, stray.base) == ("vdb", str(late.path))
    assert is_overlay(stray.path)
    entry = replace(journal_entry(bare), overlays=(overlay, stray))
    bare.put_back(entry)
    assert_on_bases(bare, entry)


def journal_entry(bare: Bare) -> JournalEntry:
    """An entry without overlays."""
    return JournalEntry("00c0ffee", bare.uuid, bare.name, "here", datetime.now(UTC), Phase.SNAPSHOTTED, ())
