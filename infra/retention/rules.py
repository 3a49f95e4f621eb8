"""borg's keep rules, as `borg prune` of 1.4 applies them (borg docs: usage/prune; borg/helpers/misc.py). Pure.

The rules are applied in one order: within, last, hourly, daily, weekly, monthly, yearly. Each looks at all archives,
newest first, and takes the newest of each period that no rule before it has taken; a period whose newest archive is
taken already is passed over and not counted. A rule that comes out of archives before its number is reached keeps the
oldest archive too. `last` is borg's `secondly`: two archives of one second are one to it. Periods are those of UTC,
in which our borg runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_PERIODS = {
    "last": "%Y-%m-%d %H:%M:%S",
    "hourly": "%Y-%m-%d %H",
    "daily": "%Y-%m-%d",
    "weekly": "%G-%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}


@dataclass(frozen=True, slots=True)
class KeepRules:
    """How many archives each rule keeps; 0 and None switch a rule off."""

    within: timedelta | None = None
    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    @property
    def keeps_nothing(self) -> bool:
        """Whether no rule keeps any archive."""
        return self.within is None and not any(getattr(self, rule) for rule in _PERIODS)


@dataclass(frozen=True, slots=True)
class Reason:
    """The rule that keeps an archive, and the how-many-th it is of that rule."""

    rule: str  # within, last, hourly, ...; "[oldest]" is appended where the rule ran out of archives
    number: int

    def __str__(self) -> str:
        """As `borg prune --list` writes it: `daily #3`."""
        return f"{self.rule} #{self.number}"


def kept_by_rules(times: Sequence[datetime], rules: KeepRules, now: datetime) -> dict[int, Reason]:
    """The index in `times` of each archive that the rules keep, and why. `times` in any order, aware."""
    newest_first = sorted(range(len(times)), key=times.__getitem__, reverse=True)
    kept: dict[int, Reason] = {}
    if rules.within is not None:
        young = [index for index in newest_first if times[index] > now - rules.within]
        kept = {index: Reason("within", number) for number, index in enumerate(young, 1)}
    for rule, pattern in _PERIODS.items():
        _apply(rule, getattr(rules, rule), pattern, times=times, newest_first=newest_first, kept=kept)
    return kept


def _apply(
    rule: str,
    wanted: int,
    pattern: str,
    *,
    times: Sequence[datetime],
    newest_first: Sequence[int],
    kept: dict[int, Reason],
) -> None:
    """Add to `kept` what one rule keeps."""
    if not wanted or not newest_first:
        return
    found, last_period = 0, ""
    for index in newest_first:
        period = times[index].astimezone(UTC).strftime(pattern)
        if period == last_period:
            continue
        last_period = period
        if index not in kept:
            found += 1
            kept[index] = Reason(rule, found)
            if found == wanted:
                return
    oldest = newest_first[-1]
    if oldest not in kept:
        kept[oldest] = Reason(f"{rule}[oldest]", found + 1)
