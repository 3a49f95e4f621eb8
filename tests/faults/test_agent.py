"""Faults of the guest agent while it freezes: nothing stays frozen, and no archive claims a freeze that was none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.errors import CommandFailed
from tests.e2e.checks import assert_on_bases, sources
from tests.faults.agents import (
    COME_BACK,
    GO_ON,
    HANG,
    REFUSE,
    VANISH,
    freezes,
    going_wrong,
    prepare,
    ring,
    wait_freeze_given_up,
)
from tests.faults.rig import Rig
from tests.faults.settings import settings
from tests.guests import wait_for

pytestmark = pytest.mark.e2e


@contextmanager
def policy(rig: Rig, **keys: Any) -> Iterator[None]:
    """These keys of vms.defaults in the block."""
    with settings(rig.site, policy=keys):
        yield


def assert_crash(outcome: dict[str, Any], reason: str) -> None:
    """The archive is complete, and says that the guest was not frozen and why."""
    assert outcome["state"] == "complete"
    assert outcome["result"]["consistency"] == "crash"
    assert reason in outcome["result"]["consistency_reason"]


@pytest.mark.fault(
    "the agent hangs in the freeze (its process is stopped), and goes on in time",
    seen="run Completed; the archive's consistency is `crash`, with the reason",
    does="gives up on the freeze at `agent_timeout`; takes the snapshot once the agent confirms that it is thawed",
)
def test_hangs_in_the_freeze(rig: Rig) -> None:
    """No disk is on an overlay as long as the guest may be frozen; then the backup goes on."""
    hanging = going_wrong(rig, hook=HANG, bell=GO_ON)
    with policy(rig, agent_timeout="3s", freeze_deadline="2m"), hanging, rig.running() as run:
        wait_freeze_given_up(rig)
        assert sources(rig.guest) == rig.bases
        ring(rig)
        call = run.wait()
    assert call.code == 0, call.stderr
    assert_crash(call.document["backups"][0], "the freeze failed")
    rig.check()


@pytest.mark.fault(
    "the agent is stopped, and freezes only after the thaw has failed too (the late freeze)",
    seen="run Failed: ThawUnconfirmed",
    does="takes no snapshot; a watchdog thaws the guest when its agent goes on, and the thaw is confirmed",
)
def test_late_freeze(rig: Rig) -> None:
    """The guest is frozen after the run has given up on it, and is thawed all the same."""
    hanging = going_wrong(rig, hook=HANG, bell=GO_ON)
    with policy(rig, agent_timeout="3s", freeze_deadline="1s"), hanging:
        frozen = freezes(rig)
        runs = len(rig.dashboard.runs(rig.guest.name))
        with rig.running() as run:
            this = rig.dashboard.wait_run(rig.guest.name, after=runs)
            wait_for(lambda: snapshot_failed(rig, this), timeout=90, what="end of the snapshot step", interval=0.3)
            assert sources(rig.guest) == rig.bases
            ring(rig)
            call = run.wait()
        assert freezes(rig) > frozen  # it was: after the run had given up
    rig.check_failed(call, "ThawUnconfirmed")
    rig.check()


def snapshot_failed(rig: Rig, run: dict[str, Any]) -> bool:
    """Whether the run has given up on the freeze and on the thaw."""
    failed = {"name": {"any_": ["snapshot"]}, "state": {"type": {"any_": ["FAILED"]}}}
    return bool(rig.dashboard.ask("task_runs", flow_runs={"id": {"any_": [run["id"]]}}, task_runs=failed))


@pytest.mark.fault(
    "the agent says that it froze, but froze nothing (`freeze_mountpoints` that the guest does not have)",
    seen="run Completed, the archive's consistency is `crash`; with `quiesce: require` Failed: FreezeFailed",
    does="counts a freeze only if the agent says how many file systems it froze and that they are frozen now",
)
def test_freezes_nothing(rig: Rig) -> None:
    """An answer without an error is no freeze."""
    with policy(rig, freeze_mountpoints=["/nonexist"]):
        assert_crash(rig.backup(), "the agent froze no file system")
        rig.check()
    with policy(rig, freeze_mountpoints=["/nonexist"], quiesce="require"), rig.running() as run:
        rig.check_failed(run.wait(), "FreezeFailed", new_archives=1)
    rig.check()


@pytest.mark.fault(
    "the agent is killed in the freeze and does not come back",
    seen="run Failed: ThawUnconfirmed; `status` and `doctor` critical",
    does="puts the VM on its own disks; goes on trying to thaw: a watchdog for ten minutes, then recover and reconcile",
    must="start qemu-guest-agent in the guest again, or restart the guest: nobody else can thaw it from outside",
)
def test_vanishes(rig: Rig) -> None:
    """A guest whose agent died in the freeze is thawed as soon as there is an agent again."""
    vanishing = going_wrong(rig, hook=VANISH, bell=COME_BACK)
    with policy(rig, agent_timeout="3s", freeze_deadline="1s"), vanishing:
        with rig.running() as run:
            call = run.wait()
        rig.check_failed(call, "ThawUnconfirmed")
        assert sources(rig.guest) == rig.bases
        rig.check_critical()
        ring(rig)
        wait_for(lambda: thawed(rig), timeout=60, what="the watchdog's thaw")
        rig.recover()
    rig.check()


def thawed(rig: Rig) -> bool:
    """Whether an agent says so."""
    try:
        return rig.guest.agent("guest-fsfreeze-status") == "thawed"
    except CommandFailed:
        return False


@pytest.mark.fault(
    "the agent answers the freeze with an error (its freeze hook fails)",
    seen="run Completed, the archive's consistency is `crash`; with `quiesce: require` Failed: FreezeFailed",
    does="goes on without a freeze, or ends before the snapshot, as the policy says",
)
def test_answers_with_an_error(rig: Rig) -> None:
    """The agent's own words are told; nothing is frozen."""
    prepare(rig, hook=REFUSE)
    assert_crash(rig.backup(), "the freeze failed")
    rig.check()
    prepare(rig, hook=REFUSE)
    with policy(rig, quiesce="require"), rig.running() as run:
        error = rig.check_failed(run.wait(), "FreezeFailed", new_archives=1)
    assert "hook" in error["evidence"]
    rig.check()


@pytest.mark.fault(
    "the file systems are frozen already, by somebody else",
    seen="run Completed, the archive's consistency is `crash`; with `quiesce: require` Failed: FreezeFailed",
    does="leaves that freeze alone: it thaws only what it froze itself",
)
def test_frozen_by_somebody_else(rig: Rig) -> None:
    """The freeze of somebody else is still there after the backup."""
    guest = rig.guest
    assert guest.agent("guest-fsfreeze-freeze") == len(rig.bases)
    try:
        assert_crash(rig.backup(), "by somebody else")
        assert guest.agent("guest-fsfreeze-status") == "frozen"
        with policy(rig, quiesce="require"), rig.running() as run:
            rig.check_failed(run.wait(), "FreezeFailed", new_archives=1)
        assert guest.agent("guest-fsfreeze-status") == "frozen"
    finally:
        guest.agent("guest-fsfreeze-thaw")
    assert_on_bases(rig.site, guest, rig.bases, [rig.folder])
    rig.check()
