"""Faults while the overlays are committed back into their bases."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.held import let_go
from tests.e2e.observing import repeating
from tests.faults.commits import LOAD, hurry, load, reach_commit, set_speed, slow_commit, unload, wait_commit
from tests.faults.processes import qemu_of
from tests.faults.rig import MIB, Rig, Running, kill
from tests.guests import Guest

pytestmark = pytest.mark.e2e


@pytest.fixture
def loaded(rig: Rig) -> Iterator[Rig]:
    """The guest wrote 200 MiB while borg read: the commit takes its time."""
    yield rig
    unload(rig)


@pytest.mark.fault(
    "kill -9 of the run inside the block commit",
    seen="the run stays Running in Prefect; `status` and `doctor` critical: `vmborg recover VM`",
    does="the commit goes on in qemu; the next recover, backup or reconcile takes it over and pivots",
)
def test_killed_in_the_commit(loaded: Rig) -> None:
    """The job outlives the run; recover takes it over."""
    rig = loaded
    with slow_commit(rig), rig.running() as run:
        reach_commit(rig)
        kill(run.child.pid, signal.SIGKILL)
        assert run.wait().code == -signal.SIGKILL
    assert rig.dashboard.last_run(rig.guest.name)["state_type"] == "RUNNING"
    rig.check_critical()
    hurry(rig)
    rig.recover()
    rig.check()
    assert rig.archives() == rig.earlier


@pytest.mark.fault(
    "qemu killed inside the block commit",
    seen="run Completed; the VM is shut off",
    does="commits what is left of the overlays with qemu-img, corrects the definition, keeps the archive",
)
def test_qemu_killed_in_the_commit(loaded: Rig) -> None:
    """The guest is gone, its last writes and the archive are not."""
    rig = loaded
    with slow_commit(rig), rig.running() as run:
        reach_commit(rig)
        os.kill(qemu_of(rig.guest), signal.SIGKILL)
        call = run.wait()
    assert call.code == 0, call.stdout + call.stderr
    rig.check("shut off")
    assert len(rig.archives()) == len(rig.earlier) + 1
    rig.guest.start().wait_agent()
    rig.guest.wait_ready()
    code, said = rig.guest.exec(["stat", "-c", "%s", LOAD])
    assert (code, int(said)) == (0, 200 * MIB)


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
ENDED_WITHIN_S = 30


def check_ended(rig: Rig, run: Running, number: signal.Signals) -> None:
    """The signal ended the run in time, and its VM is back."""
    call = run.wait(ENDED_WITHIN_S)
    assert call.code == 128 + number, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
    assert number.name in call.stderr + call.stdout
    rig.check()
    assert not rig.unfinished()
    assert rig.archives() == rig.earlier
    state = rig.dashboard.last_run(rig.guest.name)["state"]
    assert state["type"] == "CRASHED", state


def signal_rows(where: str, does: str) -> list[Any]:
    """A row for each signal that ends a command."""
    seen = "run Crashed; the command ends with exit code 128 + the signal's number"
    return [
        pytest.param(number, id=number.name, marks=pytest.mark.fault(f"{number.name} {where}", seen=seen, does=does))
        for number in SIGNALS
    ]


@pytest.mark.parametrize(
    "number", signal_rows("inside `borg create`", "ends borg, puts the VM back, leaves no archive")
)
def test_a_signal_in_create(rig: Rig, number: signal.Signals) -> None:
    """The run ends in time with the VM put back, although borg does not move."""
    with rig.running() as run:
        rig.hold()
        kill(run.child.pid, number)
        check_ended(rig, run, number)


@pytest.mark.parametrize(
    "number", signal_rows("inside the block commit", "its last act takes the commit over and pivots; leaves no archive")
)
def test_a_signal_in_the_commit(loaded: Rig, number: signal.Signals) -> None:
    """The commit is brought to its end."""
    rig = loaded
    with slow_commit(rig), rig.running() as run:
        reach_commit(rig)
        kill(run.child.pid, number)
        hurry(rig)
        check_ended(rig, run, number)


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
    with slow_commit(rig, commit_deadline="20s", commit_pause="30s"), rig.running() as run:
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
    assert call.code == 0, call.stderr
    assert "paused" in states
    rig.check()


@contextmanager
def states_of(guest: Guest) -> Iterator[set[str]]:
    """Every state that the VM is seen in during the block."""
    seen: set[str] = set()
    with repeating(lambda: seen.add(guest.state())):
        yield seen
