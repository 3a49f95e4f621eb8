"""Faults around Prefect: runs of a worker that are cancelled or killed, a worker that ends, a server that is gone."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.checks import sources
from tests.e2e.dashboard import Dashboard
from tests.e2e.held import gone, let_go, parent
from tests.e2e.prefect_server import running_server
from tests.e2e.worker import Worker
from tests.faults.commits import hurry, reach_commit, slow_commit, unload
from tests.faults.processes import listeners
from tests.faults.rig import Rig, kill
from tests.guests import wait_for

pytestmark = pytest.mark.e2e

RECONCILED = "the next `reconcile` commits the overlays, pivots and removes them"


@pytest.fixture(scope="module")
def serving(whole_rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A pool of this host, with both deployments."""
    home = tmp_path_factory.mktemp("worker")
    with Worker(whole_rig.site.api, whole_rig.site.config, home).serving() as worker:
        worker.unschedule()  # a reconcile in the middle would help too early
        yield worker


@pytest.fixture
def worker(serving: Worker) -> Worker:
    """A worker that runs."""
    serving.ensure()
    return serving


def begin(rig: Rig, worker: Worker) -> tuple[str, int]:
    """A backup that the worker runs, held in create: the flow run's id, and borg's process."""
    run_id = worker.start("backup-vm", vm=rig.guest.name)
    borg = rig.hold(timeout=240)  # a worker takes its time
    assert sources(rig.guest) != rig.bases
    return run_id, borg


def wait_back(rig: Rig) -> None:
    """Wait until the VM is back, and check it."""

    def back() -> bool:
        return sources(rig.guest) == rig.bases and not rig.site.journal.entries().entries

    wait_for(back, timeout=60, what="the VM on its bases", interval=0.3)
    rig.check()


@pytest.mark.fault(
    "`prefect flow-run cancel` in create",
    seen="run Cancelled",
    does="ends borg, puts the VM back, leaves no archive",
)
def test_cancelled_in_create(rig: Rig, worker: Worker) -> None:
    """Cancelled while borg does not move: Cancelled, borg gone, the VM on its bases."""
    run_id, borg = begin(rig, worker)
    worker.prefect("flow-run", "cancel", run_id)
    worker.dashboard.wait_state(run_id, "CANCELLED", timeout=60)
    wait_back(rig)
    assert gone(borg)
    assert rig.archives() == rig.earlier
    assert not rig.unfinished()


@pytest.mark.fault(
    "`prefect flow-run cancel` in the block commit",
    seen="run Cancelling until the VM is back, then Cancelled",
    does="the commit goes on in qemu; Prefect's hook takes it over and pivots; the unfinished archive is deleted",
)
def test_cancelled_in_the_commit(rig: Rig, worker: Worker) -> None:
    """The commit is finished by somebody else than the run."""
    with slow_commit(rig):
        run_id = worker.start("backup-vm", vm=rig.guest.name)
        flow = reach_commit(rig)
        worker.prefect("flow-run", "cancel", run_id)
        wait_for(lambda: gone(flow), timeout=60, what="the end of the run's process")
        hurry(rig)
    worker.dashboard.wait_state(run_id, "CANCELLED", timeout=60)
    wait_back(rig)
    assert rig.archives() == rig.earlier
    unload(rig)


@pytest.mark.fault(
    "kill -9 of the run that a worker started, in create",
    seen="run Crashed",
    does="borg dies with the run; Prefect's hook puts the VM back",
)
def test_killed_under_a_worker(rig: Rig, worker: Worker) -> None:
    """The worker sees the death and runs the hook."""
    run_id, borg = begin(rig, worker)
    os.kill(parent(borg), signal.SIGKILL)
    worker.dashboard.wait_state(run_id, "CRASHED", timeout=60)
    wait_back(rig)
    assert gone(borg)
    assert rig.archives() == rig.earlier


@pytest.mark.fault(
    "SIGTERM to the worker in create",
    seen="the run stays Running in Prefect; `status` and `doctor` critical: `vmborg recover VM`",
    does=f"the worker kills its runs, borg dies with them; {RECONCILED}",
)
def test_sigterm_to_the_worker(rig: Rig, worker: Worker) -> None:
    """What the worker killed is put back by the flow reconcile of the next worker."""
    run_id, borg = begin(rig, worker)
    flow = parent(borg)
    os.kill(worker.pid, signal.SIGTERM)
    worker.ended()
    wait_for(lambda: gone(flow) and gone(borg), timeout=30, what="the end of run and borg")
    assert worker.dashboard.run(run_id)["state_type"] == "RUNNING"
    rig.check_critical()
    worker.ensure()
    reconciled = worker.start("reconcile")
    state = worker.dashboard.wait_state(reconciled, "COMPLETED", timeout=90)["state"]
    assert state["message"] == "1 open runs looked at"
    rig.check()
    assert rig.archives() == rig.earlier


@pytest.mark.fault(
    "kill -9 of the worker in create",
    seen="run Completed",
    does="the run goes on without the worker to a good archive",
)
def test_kill_of_the_worker(rig: Rig, worker: Worker) -> None:
    """A run does not need the worker that started it."""
    run_id, borg = begin(rig, worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.ended()
    let_go(borg)
    message = worker.dashboard.wait_state(run_id, "COMPLETED", timeout=90)["state"]["message"]
    rig.check()
    assert message == f"Archive {rig.archives()[-1]}"
    assert len(rig.archives()) == len(rig.earlier) + 1


@pytest.mark.fault(
    "Prefect server gone in mid-run, for good",
    seen="the command fails after a while and says that Prefect does not answer",
    does="goes on without Prefect: puts the VM back; the archive is good and is listed",
)
def test_the_server_is_gone(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The way back needs no Prefect, and whoever reads the error looks for the server and not for a bug."""
    with running_server(tmp_path_factory.mktemp("prefect")) as api:
        env = {"PREFECT_API_URL": api, "PREFECT_CLIENT_MAX_RETRIES": "1"}  # the default is a minute for each call
        with rig.running(env=env) as run:
            borg = rig.hold()
            assert Dashboard(api).last_run(rig.guest.name)["state_type"] == "RUNNING"
            for pid in listeners(api):
                os.kill(pid, signal.SIGKILL)
            let_go(borg)
            wait_for(lambda: "What to do:" in run.told(), timeout=120, what="the error", interval=0.3)
            kill(run.child.pid, signal.SIGKILL)  # it tries for a minute more to deliver Prefect's events
            call = run.wait()
    wait_back(rig)
    assert len(rig.archives()) == len(rig.earlier) + 1
    assert not rig.unfinished()
    remedy = call.stderr.rpartition("What to do: ")[2].splitlines()[0]  # Prefect's own lines may stand before it
    assert "Prefect" in remedy, remedy
