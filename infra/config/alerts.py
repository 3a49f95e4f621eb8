"""Who is told when something is wrong, and who watches from outside that anything is told at all."""

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from infra.config.fields import Duration
from infra.config.secret_ref import SecretRef
from infra.config.section import Section

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class ReceiverKind(StrEnum):
    """How an alert is sent."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    TEAMS = "teams"
    APPRISE = "apprise"


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be lower case letters, digits and single dashes: Prefect's blocks are called so")
    return value


class Receiver(Section):
    """One receiver of alerts."""

    kind: ReceiverKind = Field(
        default=ReceiverKind.WEBHOOK,
        description="webhook: JSON with title and text is posted; slack, teams: their incoming webhooks; apprise: any "
        "address that apprise knows (mailtos://, ntfys://, matrixs:// and many more).",
    )
    url: SecretRef = Field(
        description="Where its address is kept, which is a secret with most of them.",
        examples=[{"file": "/etc/vmborg/alert-url"}],
    )
    token: SecretRef | None = Field(
        default=None,
        description="webhook: where that is kept which is sent as Authorization: Bearer.",
        examples=[{"file": "/etc/vmborg/alert-token"}],
    )


class AlertsConfig(Section):
    """Who is told when a run fails or is partial, a VM is not safe, or a host is silent."""

    receivers: dict[Annotated[str, AfterValidator(_name)], Receiver] = Field(
        default_factory=dict[str, Receiver],
        description="Who is told, by name.",
        examples=[{"ops": {}}],
    )
    ping: SecretRef | None = Field(
        default=None,
        description="Where the address is kept that every coverage calls: a watchdog outside (healthchecks and the "
        "like) misses it when server, worker or host are dead.",
        examples=[{"file": "/etc/vmborg/ping-url"}],
    )
    silent: Duration = Field(
        default=timedelta(hours=3), description="A host of which no coverage came for so long is an alert."
    )
    dead_run: Duration = Field(
        default=timedelta(minutes=10),
        ge=timedelta(minutes=1),
        description="A run of which no heartbeat (one every 30 s) came for so long is made Crashed, which is an alert.",
    )
    repeat: Duration = Field(default=timedelta(days=1), description="What stays wrong is told again after this.")
    min_free: int = Field(
        default=10,
        ge=0,
        le=100,
        description="Percent free of a repository's file system, or of its `capacity`, below which is an alert.",
    )
