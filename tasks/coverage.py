"""What of a host is not safe, and whether it was told already: the truth of the repositories, not of run states."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.events import emit_event

from infra.config.models import Config
from infra.journal.facts import read_facts, write_facts
from infra.model import StateDir
from tasks.health import Health
from tasks.status import Status
from tasks.upkeep import moment, stamp

ALARM = "vmborg.alarm"
COVERAGE = "vmborg.coverage"
TEST = "vmborg.alerts.test"
HOST_LABEL = "vmborg.host"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that is wrong and needs somebody."""

    source: str  # vm:UUID, dumps:HOST or problem:SUBJECT/CHECK; stays the same as long as it is wrong
    subject: str
    text: str
    remedy: str


def alarms_of(status: Status) -> list[Alarm]:
    """Everything critical: VMs too old, never backed up or on an overlay; dump hosts; damage. VMs not proven."""
    found = [
        Alarm(f"vm:{vm.uuid}", f"VM {vm.vm}", vm.text, vm.remedy) for vm in status.vms if vm.health is Health.CRITICAL
    ]
    found += [
        Alarm(f"drill:{vm.uuid}", f"VM {vm.vm}", vm.unproven, vm.remedy)
        for vm in status.vms
        if vm.unproven and vm.health is not Health.CRITICAL
    ]
    found += [
        Alarm(f"dumps:{dump.host}", f"dump host {dump.host}", dump.text, dump.remedy)
        for dump in status.dumps
        if dump.health is Health.CRITICAL
    ]
    return found + [
        Alarm(f"problem:{each.subject}/{each.check}", each.subject, each.text, each.remedy)
        for each in status.problems
        if each.health is Health.CRITICAL
    ]


def untold(alarms: list[Alarm], told: Mapping[str, datetime], *, now: datetime, repeat: timedelta) -> list[Alarm]:
    """Those that are new, or were told long ago. Pure."""
    return [each for each in alarms if each.source not in told or now - told[each.source] >= repeat]


def told_before(state: StateDir) -> dict[str, datetime]:
    """When each alarm that goes on was told. Raises JournalError."""
    found = {source: moment(when) for source, when in read_facts(_path(state)).items()}
    return {source: when for source, when in found.items() if when is not None}


def remember(
    state: StateDir, alarms: list[Alarm], told: Mapping[str, datetime], new: list[Alarm], *, now: datetime
) -> None:
    """Keep when what goes on was told; what is over is forgotten, so that it is told at once when it comes again."""
    fresh = {each.source for each in new}
    times = {each.source: now if each.source in fresh else told[each.source] for each in alarms}
    write_facts(_path(state), {source: stamp(when) for source, when in times.items()})


def tell(config: Config, alarm: Alarm) -> None:
    """Emit an alarm as an event, for Prefect's automations."""
    host = config.hypervisor.name
    payload = {"host": host, "text": alarm.text, "remedy": alarm.remedy}
    emit_event(event=ALARM, resource=_resource(host, f"{alarm.source}", alarm.subject), payload=payload)


def tell_of_life(config: Config, status: Status) -> None:
    """Emit that this host was looked at: without it, the host is silent."""
    host = config.hypervisor.name
    emit_event(event=COVERAGE, resource=_resource(host, "host", host), payload={"health": status.health.value})


def tell_test(host: str) -> Any:
    """Emit an event that goes to every receiver; returns it."""
    payload = {"host": host, "text": "This is a test of the alerts.", "remedy": "None needed."}
    return emit_event(event=TEST, resource=_resource(host, "test", "test"), payload=payload)


def _resource(host: str, source: str, name: str) -> dict[str, str]:
    return {
        "prefect.resource.id": f"vmborg.{host}.{source}".replace(" ", "-"),
        "prefect.resource.name": name,
        HOST_LABEL: host,
    }


def _path(state: StateDir) -> Path:
    return state.upkeep / "alarms" / "told.json"
