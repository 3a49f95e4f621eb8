"""Is every VM of this host safe? Looked at from the repositories; what is not is told, and that somebody looked."""

import logging
from datetime import UTC, datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from infra.config.models import Config
from infra.config.secrets import resolve
from infra.ping import ping
from tasks.coverage import Alarm, alarms_of, remember, tell, tell_of_life, told_before, untold
from tasks.dashboard.publish import refresh
from tasks.job import load_config
from tasks.lateness import SKIPPED, superseded
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import step
from tasks.status import Outlook
from tasks.status import look as look_at

logger = logging.getLogger("vmborg.coverage")


@step("look")
def look(config: Config) -> Outlook:
    """What `vmborg status` says, and the archives that it says it by."""
    return look_at(config)


@step("tell")
def tell_all(config: Config, alarms: list[Alarm], now: datetime) -> int:
    """Emit what is new or was told long ago; how many. Raises JournalError."""
    told = told_before(config.state)
    new = untold(alarms, told, now=now, repeat=config.alerts.repeat)
    for alarm in new:
        tell(config, alarm)
    remember(config.state, alarms, told, new, now=now)
    return len(new)


@flow(name="coverage", flow_run_name=on_host("coverage"), persist_result=False)
def coverage(config: str | None = None) -> State[list[Alarm]]:
    """Look whether every VM and dump host has a good archive that is young enough, and tell what is not safe.

    The dashboard's pages of the fleet, of its VMs and of its repositories show them. Completed whatever it finds:
    alerts are sent by Prefect's automations.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data=[])
    settings = load_config(config)
    outlook = look(settings)
    status = outlook.status
    alarms = alarms_of(status)
    new = tell_all(settings, alarms, datetime.now(UTC))
    tell_of_life(settings, status)
    refresh(settings, outlook)
    _ping(settings)
    said = f"{len(alarms)} not safe, {new} of them told now" if alarms else "everything is safe"
    covered = sum(vm.excluded_by is None for vm in status.vms)
    return Completed(message=f"{covered} VMs, {len(status.dumps)} dump hosts: {said}", data=alarms)


def _ping(config: Config) -> None:
    """Tell the watchdog outside; what goes wrong with it is only logged."""
    if config.alerts.ping is None:
        return
    problem = ping(resolve(config.alerts.ping, what="the address of alerts.ping"))
    if problem:
        logger.warning("the watchdog outside was not told: %s", problem)
