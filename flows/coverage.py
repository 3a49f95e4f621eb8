"""Is every VM of this host safe? Looked at from the repositories; what is not is told, and that somebody looked."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from infra.config.models import Config
from infra.config.secrets import resolve
from infra.ping import ping
from tasks.coverage import Alarm, alarms_of, remember, space_findings, tell, tell_of_life, told_before, untold
from tasks.health import worst
from tasks.job import load_config
from tasks.lateness import SKIPPED, superseded
from tasks.logs import forward_to_run
from tasks.policy import artifact_key, step
from tasks.status import Status, VmStatus, read_status
from tasks.units import duration, moment

logger = logging.getLogger("vmborg.coverage")


@step("look")
def look(config: Config) -> Status:
    """What `vmborg status` says, and the space of local repositories."""
    status = read_status(config)
    problems = (*status.problems, *space_findings(config))
    return replace(status, problems=problems, health=worst([status.health, *(each.health for each in problems)]))


@step("tell")
def tell_all(config: Config, alarms: list[Alarm], now: datetime) -> int:
    """Emit what is new or was told long ago; how many. Raises JournalError."""
    told = told_before(config.state)
    new = untold(alarms, told, now=now, repeat=config.alerts.repeat)
    for alarm in new:
        tell(config, alarm)
    remember(config.state, alarms, told, new, now=now)
    return len(new)


@flow(name="coverage", persist_result=False)
def coverage(config: str | None = None) -> State[list[Alarm]]:
    """Look whether every VM and dump host has a good archive that is young enough, and tell what is not safe.

    Its table shows all of them. Completed whatever it finds: alerts are sent by Prefect's automations.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data=[])
    settings = load_config(config)
    host = settings.hypervisor.name
    status = look(settings)
    alarms = alarms_of(status)
    new = tell_all(settings, alarms, datetime.now(UTC))
    tell_of_life(settings, status)
    create_table_artifact(
        key=artifact_key("fleet", host), table=[_row(host, vm) for vm in status.vms], description=_describe(alarms)
    )
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


def _row(host: str, vm: VmStatus) -> dict[str, Any]:
    return {
        "VM": vm.vm,
        "host": host,
        "status": vm.health.value,
        "last good archive": moment(vm.time),
        "age": duration(vm.age) if vm.age is not None else "",
        "objective": duration(vm.objective) if vm.objective is not None else "",
        "consistency": vm.consistency,
        "uncovered": ", ".join(vm.uncovered),
        "what": vm.text,
    }


def _describe(alarms: list[Alarm]) -> str:
    lines = [f"**{each.subject}**: {each.text} {each.remedy}".rstrip() for each in alarms]
    return "\n\n".join(lines) or "Everything is safe."
