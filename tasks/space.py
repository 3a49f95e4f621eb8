"""How full a repository's file system gets, and when: one sample a day is kept on the host that has it."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from infra.config.models import Config
from infra.journal.facts import read_facts, write_facts
from infra.model import StateDir
from tasks.health import Finding, Health
from tasks.upkeep import file_sizes, moment, stamp

_KEPT = 400  # days
_LOOK_BACK = timedelta(days=30)
_ENOUGH = timedelta(days=1)
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The space of one repository at one time. Bytes."""

    time: datetime
    size: int  # of the repository
    free: int  # of its file system
    total: int

    @property
    def used(self) -> int:
        """What everybody has put on the file system."""
        return self.total - self.free


def measure(config: Config, repository: str, now: datetime) -> Sample | None:
    """The space of a repository of this host; None for one elsewhere, or one that is not there. Raises OSError."""
    location = Path(config.repositories[repository].location)
    if not config.repositories[repository].location.startswith("/") or not location.is_dir():
        return None
    usage = shutil.disk_usage(location)
    return Sample(now, sum(file_sizes(location).values()), usage.free, usage.total)


def space_findings(config: Config) -> Iterator[Finding]:
    """A critical finding for each repository of this host whose file system is nearly full."""
    for name, repository in config.repositories.items():
        if not repository.location.startswith("/") or not Path(repository.location).is_dir():
            continue
        usage = shutil.disk_usage(repository.location)
        percent = 100 * usage.free // max(usage.total, 1)
        if percent < config.alerts.min_free:
            text = f"only {percent} % of its file system are free"
            remedy = "Make room, add space, or let prune keep less."
            yield Finding(Health.CRITICAL, f"repository {name}", "space", text, remedy)


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
    """By how many bytes a day the file system's use grows, by least squares over 30 days. Pure.

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
    """Days until the file system is full at this pace; None if that is not known or it does not grow. Pure."""
    pace = growth(kept)
    return kept[-1].free / pace if pace and pace > 0 else None


def _path(state: StateDir, repository: str) -> Path:
    return state.upkeep / "space" / f"{repository}.json"
