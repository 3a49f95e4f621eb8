"""Alerts as Prefect's automations: the server itself sends them, whatever became of the run that they are about.

A body holds no parameters: it is made of names, the state's message and what `vmborg status` says.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture

from deployments.registry.changes import Changes
from deployments.registry.wanted import host_tag
from infra.config.models import Config
from tasks.coverage import ALARM, COVERAGE, HOST_LABEL, TEST
from tasks.pages import every

_BAD = ("Failed", "Crashed", "TimedOut", "Partial")
_ABOUT = "{{ event.resource.name }}"


def automation_prefix(host: str) -> str:
    """What the automations of a host begin with."""
    return f"vmborg {host}: "


def put_automations(client: SyncPrefectClient, config: Config, receivers: Sequence[UUID], changes: Changes) -> None:
    """Every automation of this host; those of it that are not wanted any more go."""
    prefix = automation_prefix(config.hypervisor.name)
    found = {each.name: each for each in every(client.read_automations) if each.name.startswith(prefix)}
    for wanted in _wanted(config, receivers):
        there = found.pop(wanted.name, None)

        def write(wanted: AutomationCore = wanted, there: Automation | None = there) -> None:
            if there is None:
                client.create_automation(wanted)
            else:
                client.update_automation(there.id, wanted)

        facts = AutomationCore.model_validate(there.model_dump(exclude={"id"})) if there else None
        changes.put(f"automation {wanted.name}", wanted=_facts(wanted), found=facts and _facts(facts), write=write)
    for name, there in found.items():
        changes.remove(f"automation {name}", lambda there=there: client.delete_automation(there.id))


def _facts(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(exclude={"tags", "owner_resource"})


def _wanted(config: Config, receivers: Sequence[UUID]) -> Iterator[AutomationCore]:
    host = config.hypervisor.name
    yield _dead_run(host, config.alerts.dead_run)
    if receivers:
        yield _bad_run(host, receivers)
        yield _on_event(host, "alarm", ALARM, receivers=receivers, subject=f"{host}: {_ABOUT} is not safe")
        yield _on_event(host, "test", TEST, receivers=receivers, subject=f"{host}: {_ABOUT} of vmborg's alerts")
        yield _silent(host, receivers, config.alerts.silent)


def _of_host(host: str) -> dict[str, str | list[str]]:
    """Runs of this host, by their deployment's tag."""
    return {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{host_tag(host)}"}


def _dead_run(host: str, within: timedelta) -> AutomationCore:
    return AutomationCore(
        name=f"{automation_prefix(host)}dead run",
        description="A run of which no heartbeat comes any more is Crashed; its slots are free then.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_host(host),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message="No heartbeat came any more.", force=False
            )
        ],
    )


def _bad_run(host: str, receivers: Sequence[UUID]) -> AutomationCore:
    return AutomationCore(
        name=f"{automation_prefix(host)}bad run",
        description="A run failed, crashed, took too long or is partial.",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{name}" for name in _BAD},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_host(host),
            posture=Posture.Reactive,
        ),
        actions=_notify(
            receivers,
            f"{host}: {{{{ flow.name }}}} {{{{ flow_run.name }}}} {{{{ flow_run.state.name }}}}",
            "{{ flow_run.state.message }}\n{{ flow_run|ui_url or '' }}",
        ),
    )


def _silent(host: str, receivers: Sequence[UUID], within: timedelta) -> AutomationCore:
    return AutomationCore(
        name=f"{automation_prefix(host)}silent",
        description="No coverage came from this host: it, its worker or its schedule is dead.",
        trigger=EventTrigger(
            after={COVERAGE},
            expect={COVERAGE},
            match={HOST_LABEL: host},
            for_each={HOST_LABEL},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=_notify(receivers, f"{host} is silent", "Nobody looks whether its VMs are safe. Look at its worker."),
    )


def _on_event(host: str, name: str, event: str, *, receivers: Sequence[UUID], subject: str) -> AutomationCore:
    return AutomationCore(
        name=f"{automation_prefix(host)}{name}",
        description=f"The event {event} of this host.",
        trigger=EventTrigger(expect={event}, match={HOST_LABEL: host}, posture=Posture.Reactive),
        actions=_notify(receivers, subject, "{{ event.payload.text }}\n{{ event.payload.remedy }}"),
    )


def _notify(receivers: Sequence[UUID], subject: str, body: str) -> list[ActionTypes]:
    return [SendNotification(block_document_id=each, subject=subject, body=body) for each in receivers]
