"""Is every dump host's last good archive young enough? Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from infra.config.dumps import DumpHost
from infra.config.models import Config
from tasks.dumps.catalogue import DumpArchive
from tasks.health import Health, vm_argument
from tasks.replicas import behind

_CLOCK_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class DumpStatus:
    """One dump host's line."""

    health: Health
    host: str
    text: str
    objective: timedelta | None  # None: it is pulled no more
    repository: str
    remedy: str = ""
    archive: str = ""  # the last one that holds every dump fresh
    time: datetime | None = None
    age: timedelta | None = None


def dump_statuses(
    config: Config,
    archives: Sequence[DumpArchive],
    *,
    unreadable: Collection[str],
    now: datetime,
    growth: Mapping[str, str] = MappingProxyType({}),
) -> tuple[DumpStatus, ...]:
    """The verdict on every dump host of the configuration, and on those that this hypervisor pulled once.

    `growth` is what was unexpected about the new data of a host's last pull. What another hypervisor pulls under the
    same name is another host's.
    """
    ours: dict[str, list[DumpArchive]] = {}
    for each in archives:
        if each.finished and each.hypervisor in {config.hypervisor.name, ""}:
            ours.setdefault(each.host, []).append(each)
    found: list[DumpStatus] = []
    for name, host in config.dumps.hosts.items():
        unread = [repository for repository in host.repositories if repository in unreadable]
        known = _Known(name, host, ours.pop(name, []), unread, growth.get(name, ""), now)
        found.append(_status(known))
    found += [_gone(name, left, now) for name, left in ours.items() if any(each.hypervisor for each in left)]
    return tuple(sorted(found, key=lambda each: each.host))


@dataclass(frozen=True, slots=True)
class _Known:
    """Everything that decides about one dump host."""

    name: str
    host: DumpHost
    archives: list[DumpArchive]  # finished ones of all repositories, oldest first
    unread: list[str]  # those of its repositories that could not be read
    growth: str
    now: datetime


def _status(known: _Known) -> DumpStatus:
    good = _newest_good(known.archives, known.host.repository)
    health, text, remedy = _verdict(known, good)
    return DumpStatus(
        health=health,
        host=known.name,
        text=text,
        objective=known.host.objective,
        repository=good.repository if good else known.host.repository,
        remedy=remedy,
        archive=good.archive if good else "",
        time=good.time if good else None,
        age=known.now - good.time if good else None,
    )


def _newest_good(archives: list[DumpArchive], repository: str) -> DumpArchive | None:
    """Of those that hold every dump fresh; of equals that in the repository named."""
    good = [each for each in archives if not each.bad]
    return max(good, key=lambda each: (each.time, each.repository == repository), default=None)


def _verdict(known: _Known, good: DumpArchive | None) -> tuple[Health, str, str]:
    """Level, text, remedy."""
    pull = f"vmborg dumps pull {vm_argument(known.name)}"
    newest = known.archives[-1] if known.archives else None
    age = known.now - good.time if good else None
    young = age is not None and age <= known.host.objective
    if known.unread and not (known.host.replicas and young):
        return Health.UNKNOWN, f"its repository {known.unread[0]!r} cannot be read", ""
    if age is None:
        return Health.CRITICAL, f"never whole: {', '.join(newest.bad)}" if newest else "never pulled", pull
    if not young:
        return Health.CRITICAL, "the last good archive is older than its objective", pull
    if age < -_CLOCK_TOLERANCE:
        return Health.WARNING, "the last archive is from the future", "Look at the clocks."
    if newest is not None and newest.bad:
        return Health.WARNING, f"the newest archive is not whole: {', '.join(newest.bad)}", pull
    return _remarks(known, pull)


def _remarks(known: _Known, pull: str) -> tuple[Health, str, str]:
    """What is to be said of a host whose newest archive is good and young enough."""
    times = {each.repository: each.time for each in known.archives if not each.bad}
    since = known.now - known.host.objective
    if late := behind(known.host.repositories, times, since=since, unread=known.unread):
        return Health.WARNING, f"no good archive within its objective in: {', '.join(late)}", pull
    if known.growth:
        earlier = [each.archive for each in known.archives if each.archive != known.archives[-1].archive]
        hold = f"; `vmborg hold {earlier[-1]}` keeps the archive before." if earlier else "."
        return Health.WARNING, f"unexpected growth: {known.growth}", f"Look into it{hold}"
    return Health.OK, "pulled", ""


def _gone(name: str, archives: list[DumpArchive], now: datetime) -> DumpStatus:
    good = _newest_good(archives, "")
    return DumpStatus(
        health=Health.OK,
        host=name,
        text="no longer in the configuration; its archives are kept",
        objective=None,
        repository=archives[-1].repository,
        archive=good.archive if good else "",
        time=good.time if good else None,
        age=now - good.time if good else None,
    )
