"""After an outage a schedule catches up with one run: the others see that a later one is due, and end as Skipped.

Prefect has no such option: a worker that comes back runs every missed run, oldest first.
"""

from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext

SKIPPED = "Skipped"
"""The name of the state, which is a Completed one."""


def superseded() -> str:
    """Why the current flow run has nothing to do, "" if it has.

    Only runs of a schedule are ever skipped, and only for a later one with the same parameters that is due already.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.auto_scheduled or run.deployment_id is None or run.expected_start_time is None:
        return ""
    later = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
        expected_start_time=FlowRunFilterExpectedStartTime(after_=run.expected_start_time),
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=later)
    times = [each.expected_start_time for each in found if _stands_for(each, run) and each.expected_start_time]
    due = [time for time in times if time <= datetime.now(UTC)]
    if not due:
        return ""
    return f"Late: the run of {max(due):%Y-%m-%d %H:%M:%SZ} is due already and stands for this one"


def _stands_for(other: FlowRun, run: FlowRun) -> bool:
    same = other.id != run.id and other.auto_scheduled and other.parameters == run.parameters
    return same and other.state_type is not StateType.CANCELLED and other.expected_start_time != run.expected_start_time
