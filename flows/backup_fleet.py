"""Back up every VM of a hypervisor, each as a run of its own."""

import logging
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for

from flows.backup_vm import PARTIAL
from infra.hypervisor.connection import Hypervisor
from tasks.dashboard.publish import refresh
from tasks.fleet import Outcome, cancel_children, start_runs, wait_for_runs
from tasks.job import covered_names, load_config
from tasks.lateness import SKIPPED, superseded
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import step

logger = logging.getLogger("vmborg.fleet")


def _cancel(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's names
    """Prefect calls hooks by keyword: the parameters must have these names."""
    names = cancel_children(flow_run.id)
    logger.warning("cancelled with the fleet: %s", ", ".join(names) or "nothing")


@step("discover", retries=True)
def discover(config: str | None) -> list[str]:
    """Every VM that the configuration does not exclude. Raises ConfigError, HypervisorUnreachable."""
    settings = load_config(config)
    with Hypervisor.open(settings.hypervisor.uri) as hypervisor:
        return covered_names(settings, hypervisor)


@flow(name="backup-fleet", flow_run_name=on_host("all VMs"), persist_result=False, on_cancellation=[_cancel])
def backup_fleet(config: str | None = None) -> State[list[Outcome]]:
    """Back up every VM that is not excluded: a run of `backup-vm` for each, `vms.parallel` at the same time.

    Completed when every VM has a complete archive. Failed with the state name `Partial` when each has an archive and at
    least one of them is partial; Failed otherwise. One VM's failure does not touch the others. Cancelled, it cancels
    the runs that it started.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data=[])
    settings = load_config(config)
    host = settings.hypervisor.name
    names = discover(config)
    started = start_runs(f"backup-vm/{host}", names, {"config": config} if config else {})
    outcomes = wait_for_runs(host, started)
    create_table_artifact(key="backup-fleet", table=[_row(each) for each in outcomes], description=_sum(outcomes))
    refresh(settings)
    return add_up(outcomes)


def add_up(outcomes: list[Outcome]) -> State[list[Outcome]]:
    """The state of all together: the worst counts, as in `vmborg backup --all`."""
    if all(each.complete for each in outcomes):
        return Completed(message=_sum(outcomes), data=outcomes)
    partial = all(each.complete or each.state == PARTIAL for each in outcomes)
    return Failed(name=PARTIAL if partial else "Failed", message=_sum(outcomes), data=outcomes)


def _sum(outcomes: list[Outcome]) -> str:
    good = sum(each.complete for each in outcomes)
    bad = [f"{each.vm} {each.state}" for each in outcomes if not each.complete]
    return f"{good} of {len(outcomes)} VMs complete" + (f"; {', '.join(bad)}" if bad else "")


def _row(outcome: Outcome) -> dict[str, Any]:
    address = url_for("flow-run", obj_id=outcome.run) if outcome.run else None
    state = f"[{outcome.state}]({address})" if address else outcome.state
    return {"VM": outcome.vm, "state": state, "what": outcome.message, "seconds": round(outcome.seconds, 1)}
