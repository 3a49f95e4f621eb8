"""Is every dump host's last good archive young enough? Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.config.dumps import DumpHost
from infra.config.models import Config
from tasks.dumps.catalogue import DumpArchive
from tasks.health import Health, vm_argument

_CLOCK_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class DumpStatus:
    """One dump host's line."""

    health: Health
    host: str
    text: str
    objective: timedelta
    repository: str
    remedy: str = ""
    archive: str = ""  # the last one that holds every dump fresh
    time: datetime | None = None
    age: timedelta | None = None


def dump_statuses(
    config: Config, archives: Sequence[DumpArchive], *, unreadable: Collection[str], now: datetime
) -> tuple[DumpStatus, ...]:
    """The verdict on every dump host of the configuration."""
    return tuple(
        _judge(
            name,
            host,
            [each for each in archives if each.host == name and each.finished],
            readable=host.repository not in unreadable,
            now=now,
        )
        for name, host in sorted(config.dumps.hosts.items())
    )


def _judge(name: str, host: DumpHost, archives: list[DumpArchive], *, readable: bool, now: datetime) -> DumpStatus:
    good = next((each for each in reversed(archives) if not each.bad), None)
    newest = archives[-1] if archives else None
    age = now - good.time if good else None
    pull = f"vmborg dumps pull {vm_argument(name)}"
    if not readable:
        health, text, remedy = Health.UNKNOWN, f"its repository {host.repository!r} cannot be read", ""
    elif good is None or age is None:
        what = f"never whole: {', '.join(newest.bad)}" if newest else "never pulled"
        health, text, remedy = Health.CRITICAL, what, pull
    elif age > host.objective:
        health, text, remedy = Health.CRITICAL, "the last good archive is older than its objective", pull
    elif age < -_CLOCK_TOLERANCE:
        health, text, remedy = Health.WARNING, "the last archive is from the future", "Look at the clocks."
    elif newest is not None and newest.bad:
        health, text, remedy = Health.WARNING, f"the newest archive is not whole: {', '.join(newest.bad)}", pull
    else:
        health, text, remedy = Health.OK, "pulled", ""
    return DumpStatus(
        health=health,
        host=name,
        text=text,
        objective=host.objective,
        repository=host.repository,
        remedy=remedy,
        archive=good.archive if good else "",
        time=good.time if good else None,
        age=age,
    )
