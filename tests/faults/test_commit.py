"""Faults while the overlays are committed back into their bases."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.held import let_go
from tests.e2e.observing import repeating
from tests.faults.commits import hurry, load, set_speed, slow_commit, unload, wait_commit
from tests.faults.rig import Rig, kill
from tests.guests import Guest

pytestmark = pytest.mark.e2e


@pytest.fixture
def loaded(rig: Rig) -> Iterator[Rig]:
    """The guest wrote 200 MiB while borg read: the commit takes its time."""
    yield rig
    unload(rig)


@pytest.mark.fault(
    "kill -9 of the run inside the block commit",
    seen="run Crashed; `status` and `doctor` critical",
    does="the commit goes on in qemu; the next recover, backup or reconcile takes it over and pivots",
)
def test_killed_in_the_commit(loaded: Rig) -> None:
    """The job outlives the run; recover takes it over."""
    rig = loaded
    with rig.running() as run, slow_commit(rig):
        borg = rig.hold()
        load(rig, 200)
        let_go(borg)
        wait_commit(rig)
        kill(run.child.pid, signal.SIGKILL)
        assert run.wait().code == -signal.SIGKILL
    rig.check_critical()
    hurry(rig)
    rig.recover()
    rig.check()


@contextmanager
def rewriting(rig: Rig) -> Iterator[None]:
    """The guest writes the same 8 MiB over and over again."""
    script = "while [ -e /run/rewrite ]; do dd if=/dev/urandom of=/data/vda/load bs=1M count=8 conv=notrunc,fsync; done"
    rig.guest.exec(["touch", "/run/rewrite"])
    rig.guest.agent("guest-exec", path="sh", arg=["-c", script])
    try:
        yield
    finally:
        rig.guest.exec(["rm", "-f", "/run/rewrite"])


@pytest.mark.fault(
    "writes so heavy that the commit does not converge",
    seen="nothing; the log says that the guest was paused for some seconds",
    does="pauses the guest at `commit_deadline`, for `commit_pause` at most, so that the rest is copied; resumes it",
)
def test_a_commit_that_does_not_converge(loaded: Rig) -> None:
    """The guest is paused for as long as the rest takes, and runs afterwards."""
    rig = loaded
    rig.site.configure(commit_deadline="20s", commit_pause="30s")
    with rig.running() as run, slow_commit(rig):
        borg = rig.hold()
        load(rig, 200)
        with rewriting(rig):
            let_go(borg)
            wait_commit(rig)
            set_speed(rig, mib_s=60)
            wait_commit(rig, nearly_done=True)
            set_speed(rig, mib_s=2)  # less than the guest writes
            with states_of(rig.guest) as states:
                call = run.wait()
    rig.site.configure()
    assert call.code == 0, call.stderr
    assert "paused" in states
    rig.check()


@contextmanager
def states_of(guest: Guest) -> Iterator[set[str]]:
    """Every state that the VM is seen in during the block."""
    seen: set[str] = set()
    with repeating(lambda: seen.add(guest.state())):
        yield seen
