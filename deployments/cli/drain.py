"""`vmborg drain`: let what runs on this hypervisor end, and start nothing: a worker that is stopped kills its runs."""

import time
from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.server import prefect_client

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_POLL_S = 2.0
_TELL_S = 60.0


@click.command
@click.option("--resume", is_flag=True, help="Let the work pool go on.")
@pass_context
def command(context: Context, *, resume: bool) -> int:
    """Pause the work pool of this hypervisor and wait until nothing of it runs; then its worker may be stopped.

    What is due meanwhile starts after `vmborg drain --resume`. The worker's systemd unit does both.
    """
    pool = context.config.hypervisor.name
    with prefect_client(context) as client:
        from prefect.client.schemas.actions import WorkPoolUpdate

        client.update_work_pool(pool, WorkPoolUpdate(is_paused=not resume))
        told = -_TELL_S
        while not resume and (names := _running(client, pool)):
            if time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                context.output.note(f"waiting for {', '.join(names)}")
            time.sleep(_POLL_S)
    context.output.document({"pool": pool, "paused": not resume})
    context.output.line(f"The work pool {pool} {'goes on' if resume else 'is paused, and nothing of it runs'}.")
    return 0


def _running(client: "SyncPrefectClient", pool: str) -> list[str]:
    """The names of the runs of a pool that have a process, or are about to get one."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    busy = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=busy)),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    return [run.name for run in found]
