"""kill -9 of the run at every step boundary and inside its steps. Inside the commit: test_commit."""

import signal
from typing import Any

import pytest

from infra.model import Phase
from tests.e2e.checks import sources
from tests.e2e.held import gone
from tests.faults.rig import Rig, kill
from tests.guests import wait_for

pytestmark = pytest.mark.e2e

RUNNING = "the run stays Running in Prefect"
CRITICAL = f"{RUNNING}; `status` and `doctor` critical: `vmborg recover VM`"


def row(point: str, fault: str, does: str, *, seen: str, **more: Any) -> Any:
    """A point of tests.e2e.killing, what is expected there, and the row of it."""
    mark = pytest.mark.fault(f"kill -9 of the run {fault}", seen=seen, does=does)
    return pytest.param(point, *more.values(), marks=mark, id=point.replace(" ", "-"))


def die_at(rig: Rig, point: str) -> None:
    """A backup that is killed at this point; Prefect is not told."""
    with rig.running(program=f"tests.e2e.killing {point}") as run:
        died = run.wait()
    assert died.code == -signal.SIGKILL, died.stderr
    assert rig.dashboard.last_run(rig.guest.name)["state_type"] == "RUNNING"


def check_not_critical(rig: Rig) -> None:
    """Nothing is left to recover, and nothing says so."""
    said = rig.site.vmborg("status").stdout
    assert rig.guest.name in said
    assert "vmborg recover" not in said


UNTOUCHED = "nothing: the guest was not touched; the lock went with the process"


@pytest.mark.parametrize(
    "point",
    [
        row("after recover", "after step `recover`", UNTOUCHED, seen=RUNNING),
        row("after inspect", "after step `inspect`", UNTOUCHED, seen=RUNNING),
        row("after preflight", "after step `preflight`", UNTOUCHED, seen=RUNNING),
    ],
)
def test_killed_before_the_guest_is_touched(rig: Rig, point: str) -> None:
    """The VM is as it was, and there is nothing to recover."""
    die_at(rig, point)
    rig.check()
    check_not_critical(rig)
    assert rig.archives() == rig.earlier


@pytest.mark.fault(
    "kill -9 of the run inside the freeze",
    seen=CRITICAL,
    does="its watchdog thaws the guest at once; `recover`, `reconcile` or the next backup closes the run",
)
def test_killed_in_the_freeze(rig: Rig) -> None:
    """The guest is thawed before anybody recovers."""
    die_at(rig, "in freeze")
    assert sources(rig.guest) == rig.bases
    wait_for(lambda: rig.guest.agent("guest-fsfreeze-status") == "thawed", timeout=30, what="the watchdog's thaw")
    rig.guest.wait_counter_moves()
    rig.check_critical()
    rig.recover()
    rig.check()


PUT_BACK = "`recover`, `reconcile` or the next backup commits the overlays, pivots and removes them"


@pytest.mark.parametrize(
    ("point", "phase"),
    [
        row(
            "after taking",
            "inside the snapshot, the guest frozen and on its overlays",
            f"its watchdog thaws the guest at once; {PUT_BACK}",
            seen=CRITICAL,
            phase=Phase.PREPARED,
        ),
        row(
            "before manifest",
            "inside the snapshot, the guest thawed",
            PUT_BACK,
            seen=CRITICAL,
            phase=Phase.SNAPSHOTTED,
        ),
        row(
            "after create",
            "after step `create`",
            f"{PUT_BACK}, and deletes the unfinished archive",
            seen=CRITICAL,
            phase=Phase.SNAPSHOTTED,
        ),
    ],
)
def test_killed_on_the_overlays(rig: Rig, point: str, phase: Phase) -> None:
    """The guest runs on, on its overlays, until recover puts it back."""
    die_at(rig, point)
    left_on_overlays(rig, phase)
    wait_for(lambda: rig.guest.agent("guest-fsfreeze-status") == "thawed", timeout=30, what="the guest, thawed")
    rig.guest.wait_counter_moves()
    rig.check_critical()
    rig.recover()
    rig.check()
    assert not rig.unfinished()
    assert rig.archives() == rig.earlier


def left_on_overlays(rig: Rig, phase: Phase) -> None:
    """Every disk is on its overlay, and the journal knows."""
    entry = rig.site.journal.read(rig.guest.uuid)
    assert entry is not None
    assert entry.phase is phase
    assert sources(rig.guest) == {overlay.target: overlay.path for overlay in entry.overlays}
    assert {overlay.target: overlay.base for overlay in entry.overlays} == rig.bases


@pytest.mark.fault(
    "kill -9 of the run after step `snapshot`, and nobody does anything until the next backup",
    seen=CRITICAL,
    does="the next backup puts the VM back first, says so, and ends with a good archive",
)
def test_killed_and_left_to_the_next_backup(rig: Rig) -> None:
    """No snapshot is taken on top of a leftover: the backup recovers."""
    die_at(rig, "after snapshot")
    left_on_overlays(rig, Phase.SNAPSHOTTED)
    rig.check_critical()
    outcome = rig.backup()
    assert outcome["state"] == "complete"
    assert len(outcome["result"]["recovered"]) >= len(rig.bases)
    rig.check()


@pytest.mark.fault(
    "kill -9 of the run inside `borg create`",
    seen=CRITICAL,
    does=f"borg dies with the run; {PUT_BACK}",
)
def test_killed_in_create(rig: Rig) -> None:
    """borg does not outlive the run, whose archive is not there."""
    with rig.running() as run:
        borg = rig.hold()
        kill(run.child.pid, signal.SIGKILL)
        assert run.wait().code == -signal.SIGKILL
    wait_for(lambda: gone(borg), timeout=20, what="borg's end")
    left_on_overlays(rig, Phase.SNAPSHOTTED)
    rig.check_critical()
    rig.recover()
    rig.check()
    assert rig.archives() == rig.earlier


@pytest.mark.fault(
    "kill -9 of the run after step `pivot`",
    seen=f"{RUNNING}; `list` shows the archive as UNFINISHED",
    does="nothing for the VM, it is back; the next backup deletes the unfinished archive",
)
def test_killed_after_the_pivot(rig: Rig) -> None:
    """The archive that nobody verified is not taken for a good one."""
    die_at(rig, "after pivot")
    rig.check()
    check_not_critical(rig)
    assert len(rig.unfinished()) == 1
    assert "UNFINISHED" in rig.site.vmborg("list", "--", rig.guest.name).stdout
    assert rig.archives() == rig.earlier


@pytest.mark.parametrize(
    "point",
    [
        row("after verify", "after step `verify`", "nothing: the archive is good and is listed", seen=RUNNING),
        row("after report", "after step `report`", "nothing: the archive is good and is listed", seen=RUNNING),
    ],
)
def test_killed_when_the_archive_is_good(rig: Rig, point: str) -> None:
    """A verified archive is whole, whatever Prefect was told."""
    die_at(rig, point)
    rig.check()
    check_not_critical(rig)
    (made,) = [name for name in rig.archives() if name not in rig.earlier]
    rig.check_extracts(made)
