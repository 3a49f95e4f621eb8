"""Many backups as runs of their own: started, waited for, added up, and cancelled with the run that started them."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException

from infra.errors import UsageError
from tasks.pages import PAGE, every

logger = logging.getLogger("vmborg.fleet")

POLL_S = 5.0
_NOT_STARTED = "Not started"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run of one VM ended. `state` is the name of its state: Completed, Partial, Failed, Crashed, Cancelled."""

    vm: str
    state: str
    message: str
    seconds: float = 0.0
    run: str = ""  # the flow run's id

    @property
    def complete(self) -> bool:
        """A good archive, nothing missing."""
        return self.state == "Completed"


def start_runs(deployment: str, names: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, UUID | str]:
    """One run of `deployment` for each VM; its id, or why there is none. One that cannot be started stops no other.

    Raises UsageError when there is no such deployment.
    """
    _require(deployment)
    started: dict[str, UUID | str] = {}
    for name in names:
        try:
            given = {**parameters, "vm": name}
            run: Any = run_deployment(deployment, parameters=given, flow_run_name=name, timeout=0)
            started[name] = run.id
        except (httpx.HTTPError, PrefectException) as error:
            logger.warning("no run could be started for %s: %s", name, error)
            started[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return started


def _require(deployment: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise UsageError(
                f"There is no deployment {deployment} to run.",
                evidence=str(error),
                remedy="Call `vmborg deploy` on this host.",
            ) from error


def wait_for_runs(pool: str, started: Mapping[str, UUID | str]) -> list[Outcome]:
    """Wait until every run has ended, and say how each did, in the order in which they were started.

    When the work pool is paused (a worker is being drained) it waits for those that run and no longer: the others
    are left to be started when the pool goes on.
    """
    ids = {name: run for name, run in started.items() if isinstance(run, UUID)}
    last: dict[UUID, FlowRun] = {}
    while True:
        try:
            with get_client(sync_client=True) as client:
                last |= _read(client, list(ids.values()))
                paused = client.read_work_pool(pool).is_paused
        except httpx.HTTPError as error:
            logger.warning("Prefect's server does not answer, the runs go on without it: %s", error)
        else:
            waited_for = [run for run in last.values() if not _is_final(run)]
            if not waited_for or (paused and all(run.state_type is StateType.SCHEDULED for run in waited_for)):
                break
        time.sleep(POLL_S)
    return [_outcome(name, last.get(run) if isinstance(run, UUID) else run) for name, run in started.items()]


def _read(client: SyncPrefectClient, ids: Sequence[UUID]) -> dict[UUID, FlowRun]:
    found: dict[UUID, FlowRun] = {}
    for first in range(0, len(ids), PAGE):
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(ids[first : first + PAGE])))
        found |= {run.id: run for run in client.read_flow_runs(flow_run_filter=wanted, limit=PAGE)}
    return found


def _is_final(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _outcome(name: str, run: FlowRun | str | None) -> Outcome:
    if not isinstance(run, FlowRun):
        return Outcome(name, _NOT_STARTED, run or "its run is gone")
    if run.state is None or not run.state.is_final():
        return Outcome(name, _NOT_STARTED, "the work pool is paused; it starts when the pool goes on", run=str(run.id))
    message = (run.state.message or "").strip().splitlines()
    return Outcome(
        vm=name,
        state=run.state.name or run.state.type.value,
        message=message[0] if message else "",
        seconds=run.total_run_time.total_seconds(),
        run=str(run.id),
    )


def cancel_children(parent: UUID) -> list[str]:
    """Cancel every run that this flow run started and that has not ended. Returns their names.

    Prefect's server does the same in a loop of 20 s, one after the other; a guest on an overlay should not wait for it.
    """
    wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
    with get_client(sync_client=True) as client:
        children = every(partial(client.read_flow_runs, flow_run_filter=wanted))
        running = [run for run in children if not _is_final(run) and run.state_type is not StateType.CANCELLING]
        for run in running:
            client.set_flow_run_state(run.id, State(type=StateType.CANCELLING))
    return [run.name for run in running]
