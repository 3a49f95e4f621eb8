"""Putting a domain back after our own death, at every moment of it, and through the death of libvirtd."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from infra.journal.store import Journal
from infra.model import Phase
from infra.process import Child, spawn
from tests.guests import Daemons, virsh, wait_for
from tests.integration.bare import MIB, Bare, World, assert_on_bases, holds
from tests.integration.own_libvirtd import own_libvirtd

pytestmark = pytest.mark.integration

LIVE_MOMENTS = 9
"""Two disks: phase; pivot asked, settled, told, twice; two files removed."""
OFF_MOMENTS = 9
"""Two disks: phase; definition, settled, told, twice; two files removed."""


@pytest.fixture
def world(daemons: Daemons) -> Iterator[World]:  # noqa: ARG001 - must run
    """Images and domains of one test."""
    with World() as world:
        yield world


@contextmanager
def dying(bare: Bare, journal: Journal, moment: int) -> Iterator[Child]:
    """A recovery in a process of its own."""
    argv = ["-m", "tests.integration.dying", bare.uri, str(journal.directory), bare.uuid, str(moment)]
    with spawn([sys.executable, *argv], cwd=str(Path(__file__).parents[2])) as child:
        yield child


@pytest.mark.parametrize(("moment", "after"), [*product(range(1, LIVE_MOMENTS + 1), ["", "plug"]), (3, "plug, start")])
def test_killed_at_every_moment_of_a_live_recovery(world: World, tmp_path: Path, moment: int, after: str) -> None:
    """The next recovery finishes the work, whether the guest ran on, lost its power, or was started again."""
    disks = [world.disk("vda"), world.disk("vdb", "raw")]
    bare = world.bare(*disks).define().start()
    entry = bare.snapshot()
    bare.write("vda", 1)
    bare.write("vdb", 2)
    journal = Journal(tmp_path)
    journal.write(entry)
    with dying(bare, journal, moment) as child:
        assert child.wait(60) == -signal.SIGKILL
    if after:
        bare.write("vda", 1, offset=MIB)
        bare.domain.destroy()
    if after == "plug, start":
        bare.start()
    left = journal.read(bare.uuid)
    assert left is not None

    bare.put_back(left)

    assert_on_bases(bare, entry)
    bare.forget()
    assert holds(disks[0], 1)
    assert holds(disks[1], 2)
    assert not after or holds(disks[0], 1, offset=MIB)


@pytest.mark.parametrize("moment", range(1, OFF_MOMENTS + 1))
def test_killed_at_every_moment_of_an_offline_recovery(world: World, tmp_path: Path, moment: int) -> None:
    """The next recovery finishes the work."""
    disks = [world.disk("vda"), world.disk("vdb", "raw")]
    bare = world.bare(*disks).define().start()
    entry = bare.snapshot()
    bare.write("vda", 1)
    bare.write("vdb", 2)
    bare.domain.destroy()
    journal = Journal(tmp_path)
    journal.write(entry)
    with dying(bare, journal, moment) as child:
        assert child.wait(60) == -signal.SIGKILL
    left = journal.read(bare.uuid)
    assert left is not None
    bare.put_back(left)
    assert_on_bases(bare, entry)
    assert holds(disks[0], 1)
    assert holds(disks[1], 2)


@pytest.mark.parametrize("end", ["", "destroy", "undefine and destroy"])
def test_killed_inside_a_commit(world: World, tmp_path: Path, end: str) -> None:
    """The job of a dead run lives on in qemu and is taken over; if the guest died with it, it is done offline."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 3, size=8 * MIB)
    bare.slow_job(entry.overlays[0])
    journal = Journal(tmp_path)
    journal.write(entry)
    with dying(bare, journal, 0) as child:
        wait_for(lambda: read_phase(journal, bare) is Phase.PUTTING_BACK, timeout=20, what="the recovery's commit")
        child.kill()
    job = bare.domain.block_job("vda")
    assert job is not None
    assert job.cur < job.end
    left = journal.read(bare.uuid)
    assert left is not None
    if "undefine" in end:
        virsh(bare.uri, "undefine", bare.uuid)
    if end:
        bare.domain.destroy()
    else:
        bare.hurry("vda")

    bare.put_back(left)

    assert not Path(entry.overlays[0].path).exists()
    bare.forget()
    assert holds(disk, 3)


def read_phase(journal: Journal, bare: Bare) -> Phase | None:
    """What the journal says now."""
    entry = journal.read(bare.uuid)
    return entry.phase if entry else None


def test_libvirtd_killed_inside_a_commit(daemons: Daemons) -> None:  # noqa: ARG001 - /dev/kvm
    """The job goes on in qemu; the recovery that was waiting for it finishes when the daemon is back."""
    with own_libvirtd() as daemon, World(daemon.uri) as world:
        disk = world.disk("vda")
        bare = world.bare(disk).define().start()
        entry = bare.snapshot()
        bare.write("vda", 9, size=4 * MIB)
        bare.slow_job(entry.overlays[0])
        waiting = threading.Event()
        recovery = threading.Thread(target=bare.put_back, args=(entry,), kwargs={"save": lambda _: waiting.set()})
        recovery.start()
        assert waiting.wait(20)
        daemon.kill()
        daemon.start()
        recovery.join(60)
        assert not recovery.is_alive()
        assert_on_bases(bare, entry)
        bare.forget()
        assert holds(disk, 9)
