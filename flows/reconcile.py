"""Put every VM back that a dead run left on overlays: for a schedule, and for a host's boot before guests start."""

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.job import load_config
from tasks.lateness import SKIPPED, superseded
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import step
from tasks.recover_all import recover_all
from tasks.recovery import Recovery


@step("recover")
def recover_host(config: str | None) -> list[Recovery]:
    """Recover what dead runs and commands left on this host; see tasks.recover_all for the errors."""
    return recover_all(load_config(config))


@flow(name="reconcile", flow_run_name=on_host("reconcile"), persist_result=False)
def reconcile(config: str | None = None) -> State[list[Recovery]]:
    """Recover what dead runs left on this host. Failed when a VM could not be put back.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data=[])
    recoveries = recover_host(config)
    if recoveries:
        create_table_artifact(key="reconcile", table=[_row(recovery) for recovery in recoveries])
    stuck = [recovery.name for recovery in recoveries if recovery.error and not recovery.busy]
    if stuck:
        return Failed(message=f"Not put back or taken away: {', '.join(stuck)}", data=recoveries)
    return Completed(message=f"{len(recoveries)} open runs looked at", data=recoveries)


def _row(recovery: Recovery) -> dict[str, str]:
    return {
        "VM": recovery.name,
        "done": "; ".join(recovery.actions),
        "left": recovery.error.splitlines()[0] if recovery.error else "",
    }
