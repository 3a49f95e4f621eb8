"""`vmborg alerts test`: send a test to every receiver, the way an alert goes, and say whether it arrived."""

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.server import prefect_client
from infra.config.secrets import resolve
from infra.errors import UsageError
from infra.ping import ping

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient

_ANSWER_S = 60.0
_POLL_S = 0.5
_SENT, _FAILED = "prefect.automation.action.executed", "prefect.automation.action.failed"


@click.group
def command() -> None:
    """Alerts: who is told when something is wrong."""


@command.command("test")
@pass_context
def test(context: Context) -> int:
    """Send a test to every receiver of the configuration, through the server, and call the watchdog outside.

    Exit code 1 if one of them was not reached.
    """
    config = context.config
    names = list(config.alerts.receivers)
    if not names and config.alerts.ping is None:
        raise UsageError(
            "Nobody is told anything.",
            evidence="alerts.receivers is empty, and there is no alerts.ping",
            remedy="See docs/alerts.md, then `vmborg deploy`.",
        )
    said = _send(context, names) if names else {}
    if config.alerts.ping is not None:
        said["ping"] = ping(resolve(config.alerts.ping, what="the address of alerts.ping"))
    context.output.document({"receivers": [{"name": name, "problem": problem} for name, problem in said.items()]})
    for name, problem in said.items():
        context.output.line(f"{name}: {problem or 'reached'}")
    return 1 if any(said.values()) else 0


def _send(context: Context, names: list[str]) -> dict[str, str]:
    """What went wrong with each receiver, "" for nothing."""
    host = context.config.hypervisor.name
    with prefect_client(context) as client:
        from prefect.events.worker import EventsWorker

        from deployments.registry.blocks import block_prefix
        from tasks.coverage import tell_test

        event = tell_test(host)
        EventsWorker.drain_all(timeout=_ANSWER_S)
        blocks = {f"{block_prefix(host)}{name}": name for name in names}
        answers: dict[str, str] = {}
        deadline = time.monotonic() + _ANSWER_S
        while len(answers) < len(names) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            for answer in _answers(client, event.id):
                named = [each.get("prefect.resource.name", "") for each in answer["related"]]
                name = next((blocks[each] for each in named if each in blocks), "")
                failed = answer["event"] == _FAILED
                answers |= {name: _reason(answer) if failed else ""} if name else {}
    return {name: answers.get(name, "no answer; call `vmborg deploy`, look at the server's log") for name in names}


def _answers(client: "SyncPrefectClient", event: "UUID") -> list[dict[str, Any]]:
    """What the server did because of an event, action by action."""
    since = (datetime.now(UTC) - timedelta(minutes=10)).isoformat()
    wanted = {
        "event": {"name": [_SENT, _FAILED]},
        "occurred": {"since": since},
        "related": {"id": [f"prefect.event.{event}"]},
    }
    answer = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50})
    return cast("list[dict[str, Any]]", answer.json()["events"])


def _reason(answer: dict[str, Any]) -> str:
    payload = answer["payload"]
    said = f"{payload.get('reason', 'failed')} {payload.get('notification_log', '')}".strip().splitlines()
    return said[0] if said else "failed"
