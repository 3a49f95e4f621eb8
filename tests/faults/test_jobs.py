"""Jobs of somebody else on the VM: a backup leaves them alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from infra.process import Child, spawn
from tests.faults.rig import MIB, Rig
from tests.guests import virsh, wait_for
from tests.integration.own_libvirtd import own_libvirtd

pytestmark = pytest.mark.e2e


def jobs(rig: Rig) -> str:
    """What virsh says of the VM's job."""
    return virsh(rig.guest.uri, "domjobinfo", rig.guest.uuid)


@pytest.mark.fault(
    "a block job of somebody else runs on a disk",
    seen="run Failed with DomainBusy, which names the disk",
    does="leaves job and guest alone",
)
def test_a_foreign_block_job(rig: Rig) -> None:
    """Somebody's copy of a disk goes on as if nothing were."""
    copy = rig.folder / "copy"
    virsh(rig.guest.uri, "blockcopy", rig.guest.uuid, "vda", str(copy), "--transient-job", "--bandwidth", "1")
    try:
        error = rig.refused("DomainBusy")
        assert "vda" in error["brief"]
        assert virsh(rig.guest.uri, "blockjob", rig.guest.uuid, "vda", "--info")
    finally:
        virsh(rig.guest.uri, "blockjob", rig.guest.uuid, "vda", "--abort")
        copy.unlink()
    rig.check()


@contextmanager
def dumping(rig: Rig) -> Iterator[None]:
    """Somebody dumps the running guest: qemu migrates it into a pipe that nobody reads."""
    pipe = rig.folder / "dump"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    argv = ["virsh", "-c", rig.guest.uri, "dump", rig.guest.uuid, str(pipe), "--live"]
    try:
        with spawn(argv) as dump:
            wait_for(lambda: "Data processed" in jobs(rig), timeout=60, what="the dump")
            yield
            assert dump.poll() is None
            virsh(rig.guest.uri, "domjobabort", rig.guest.uuid)
            wait_for(lambda: drained(reader, dump), timeout=60, what="the end of the dump", interval=0.01)
    finally:
        os.close(reader)
        pipe.unlink()


def drained(reader: int, writer: Child) -> bool:
    """Read what is in the pipe (qemu gives up only then); whether the program that writes has ended."""
    with suppress(BlockingIOError):
        while os.read(reader, MIB):
            pass
    return writer.poll() is not None


@pytest.mark.fault(
    "a job of somebody else works on the whole VM (its memory is dumped while it runs)",
    seen="run Failed with DomainBusy, which names the job",
    does="leaves job and guest alone",
)
def test_a_foreign_job(rig: Rig) -> None:
    """The dump is still going on after the backup has refused."""
    with dumping(rig):
        error = rig.refused("DomainBusy")
        assert "busy" in error["brief"]
        assert "Data processed" in jobs(rig)
    rig.check()


@pytest.mark.fault(
    "the VM is being migrated to another host",
    seen="run Failed with DomainBusy, which names the job",
    does="leaves job and guest alone",
)
def test_a_migration(rig: Rig) -> None:
    """The migration is still going on after the backup has refused; it is given up, and the guest goes on here."""
    with own_libvirtd() as there, migrating(rig, there.uri):
        error = rig.refused("DomainBusy")
        assert "busy" in error["brief"]
        assert "Data processed" in jobs(rig)
    rig.check()


@contextmanager
def migrating(rig: Rig, uri: str) -> Iterator[None]:
    """Somebody migrates the running guest to another libvirtd, too slowly to get there."""
    options = ("--live", "--unsafe", "--bandwidth", "1")  # both see the same disks, which libvirt cannot know
    with spawn(["virsh", "-c", rig.guest.uri, "migrate", *options, rig.guest.uuid, uri]) as migration:
        wait_for(lambda: moving(migration, rig), timeout=60, what="the migration")
        yield
        assert migration.poll() is None
        virsh(rig.guest.uri, "domjobabort", rig.guest.uuid)
        migration.wait(60)


def moving(migration: Child, rig: Rig) -> bool:
    """Whether the migration is under way."""
    assert migration.poll() is None, migration.stderr.read()
    return "Data processed" in jobs(rig)
