"""How full a repository gets, and when: one sample of its space is kept a day.

The file system of a local one is asked. Of one on a server borg tells the size after each backup; what may be stored
there at most nobody tells, so the configuration says it (`capacity`).
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from infra.config.models import Config
from infra.errors import JournalError
from infra.journal.facts import read_facts, write_facts
from infra.model import StateDir
from tasks.destinations import Destinations
from tasks.health import Finding, Health, failed
from tasks.upkeep import file_sizes, moment, stamp

logger = logging.getLogger("vmborg.space")

_KEPT = 400  # days
_LOOK_BACK = timedelta(days=30)
_ENOUGH = timedelta(days=1)
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The space of one repository at one time. Bytes."""

    time: datetime
    size: int  # of the repository
    free: int  # of its file system, or of its server's `capacity`; 0 if that is not known
    total: int  # the same; 0 if it is not known

    @property
    def used(self) -> int:
        """What everybody has put on the file system; of one on a server what vmborg has."""
        return self.total - self.free if self.total else self.size


def measure(config: Config, repository: str, now: datetime) -> Sample | None:
    """The space of a repository of this host; None for one elsewhere, or one that is not there. Raises OSError."""
    location = Path(config.repositories[repository].location)
    if config.repositories[repository].is_remote or not location.is_dir():
        return None
    usage = shutil.disk_usage(location)
    return Sample(now, sum(file_sizes(location).values()), usage.free, usage.total)


def space_findings(config: Config) -> Iterator[Finding]:
    """A critical finding for each repository that is nearly full."""
    for name in config.repositories:
        subject = f"repository {name}"
        try:
            free, total, of = _room(config, name)
        except JournalError as error:
            yield failed(error, subject=subject, check="space", health=Health.UNKNOWN)
            continue
        percent = 100 * free // total if total else 100
        if percent < config.alerts.min_free:
            text = f"only {percent} % of its {of} are free"
            remedy = "Make room, add space, or let prune keep less."
            yield Finding(Health.CRITICAL, subject, "space", text, remedy)


def _room(config: Config, repository: str) -> tuple[int, int, str]:
    """Bytes free, bytes in all (0: not known), and of what."""
    settings = config.repositories[repository]
    if settings.is_remote:
        kept = known(config, repository)
        return (kept[-1].free, kept[-1].total, "capacity") if kept else (0, 0, "")
    usage = shutil.disk_usage(settings.location) if Path(settings.location).is_dir() else None
    return (usage.free, usage.total, "file system") if usage else (0, 0, "")


def remember_told(config: Config, destinations: Destinations, when: datetime) -> None:
    """Keep the sizes that borg told after a backup of the repositories on servers. What goes wrong is only logged."""
    for each in destinations:
        if not config.repositories[each.name].is_remote or each.figures is None or not each.figures.repository_size:
            continue
        try:
            remember(config.state, each.name, Sample(when, each.figures.repository_size, 0, 0))
        except JournalError as error:
            logger.warning("the space of the repository %s is not known: %s", each.name, error.brief)


def known(config: Config, repository: str) -> list[Sample]:
    """What was kept of one, oldest first; that of a server with its `capacity`. Raises JournalError."""
    capacity = config.repositories[repository].capacity
    kept = samples(config.state, repository)
    if not capacity:
        return kept
    return [replace(each, free=max(capacity - each.size, 0), total=int(capacity)) for each in kept]


def remember(state: StateDir, repository: str, sample: Sample) -> list[Sample]:
    """Keep the sample as that of its day; all that are kept, oldest first. Raises JournalError."""
    earlier = [each for each in samples(state, repository) if each.time.date() != sample.time.date()]
    kept = sorted([*earlier, sample], key=lambda each: each.time)[-_KEPT:]
    rows = [{"time": stamp(each.time), "size": each.size, "free": each.free, "total": each.total} for each in kept]
    write_facts(_path(state, repository), {"samples": rows})
    return kept


def samples(state: StateDir, repository: str) -> list[Sample]:
    """What was kept, oldest first. Raises JournalError."""
    found: list[Sample] = []
    for row in read_facts(_path(state, repository)).get("samples", []):
        when = moment(row.get("time"))
        if when is not None:
            found.append(Sample(when, int(row["size"]), int(row["free"]), int(row["total"])))
    return found


def growth(kept: Sequence[Sample]) -> float | None:
    """By how many bytes a day its use grows, by least squares over 30 days. Pure.

    None as long as the samples reach back less than a day: the first backups say nothing about the usual ones.
    """
    recent = [each for each in kept if kept[-1].time - each.time <= _LOOK_BACK]
    if not recent or recent[-1].time - recent[0].time < _ENOUGH:
        return None
    days = [(each.time - recent[0].time).total_seconds() / _DAY_S for each in recent]
    middle, usual = sum(days) / len(days), sum(each.used for each in recent) / len(recent)
    spread = sum((day - middle) ** 2 for day in days)
    return sum((day - middle) * (each.used - usual) for day, each in zip(days, recent, strict=True)) / spread


def days_left(kept: Sequence[Sample]) -> float | None:
    """Days until it is full at this pace; None if that is not known or it does not grow. Pure."""
    pace = growth(kept)
    return kept[-1].free / pace if pace and pace > 0 and kept[-1].total else None


def _path(state: StateDir, repository: str) -> Path:
    return state.upkeep / "space" / f"{repository}.json"
