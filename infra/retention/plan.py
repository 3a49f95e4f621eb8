"""What happens to each archive of one source, in one repository. Pure.

The keep rules are for complete archives. Above them stand protections that no rule and no number can take away:

- an archive that is held stays;
- the newest complete archive of a source stays, whatever the rules say;
- partial archives (a disk is missing) never count: they cannot push a complete one out. The same rules are applied to
  them by themselves, and the newest one stays while it is newer than every complete archive;
- unfinished archives belong to a run; only those that no run can have any more are pruned.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.retention.rules import KeepRules, kept_by_rules

PRUNED = "pruned"
HELD = "held"
NEWEST_GOOD = "newest good"
NEWEST_PARTIAL = "newest, partial"
UNFINISHED = "unfinished"
ABANDONED_AFTER = timedelta(days=7)
"""A run that is older than this is dead: its unfinished archive is what `recover` would delete on its own host."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What retention needs to know of an archive."""

    name: str
    time: datetime
    finished: bool = True
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one archive, and by which rule."""

    archive: Archive
    kept: bool
    rule: str  # `daily #3`, `held`, `newest good`; `pruned` when nothing keeps it


def plan_source(
    archives: Sequence[Archive], rules: KeepRules, *, now: datetime, held: Collection[str] = ()
) -> list[Decision]:
    """The fate of every archive of one source, newest first. `now` decides `within` and what is abandoned."""
    complete = [each for each in archives if each.finished and not each.partial]
    partial = [each for each in archives if each.finished and each.partial]
    reasons = _by_rules(complete, rules, now)
    reasons |= {name: f"partial, {why}" for name, why in _by_rules(partial, rules, now).items()}
    return _decide(archives, reasons, now=now, held=held)


def thin_source(archives: Sequence[Archive], keep: int, *, now: datetime, held: Collection[str] = ()) -> list[Decision]:
    """The fate of every archive of a retired source whose grace is over: the newest `keep` good ones stay."""
    good = sorted(
        (each for each in archives if each.finished and not each.partial),
        key=lambda each: (each.time, each.name),
        reverse=True,
    )
    reasons = {each.name: f"retired, last #{number}" for number, each in enumerate(good[:keep], 1)}
    return _decide(archives, reasons, now=now, held=held)


def keep_source(archives: Sequence[Archive], why: str) -> list[Decision]:
    """Everything stays, for one reason."""
    return [Decision(each, kept=True, rule=why) for each in _newest_first(archives)]


def forget_source(archives: Sequence[Archive], *, held: Collection[str] = ()) -> list[Decision]:
    """Everything goes but what is held."""
    return [
        Decision(each, kept=each.name in held, rule=HELD if each.name in held else "forgotten")
        for each in _newest_first(archives)
    ]


def _by_rules(archives: Sequence[Archive], rules: KeepRules, now: datetime) -> dict[str, str]:
    kept = kept_by_rules([each.time for each in archives], rules, now)
    return {archives[index].name: str(reason) for index, reason in kept.items()}


def _decide(
    archives: Sequence[Archive], reasons: dict[str, str], *, now: datetime, held: Collection[str]
) -> list[Decision]:
    protected = _protected(archives)
    decisions: list[Decision] = []
    for each in _newest_first(archives):
        if each.name in held:
            rule = HELD
        elif not each.finished:
            rule = PRUNED if now - each.time > ABANDONED_AFTER else UNFINISHED
        else:
            rule = reasons.get(each.name) or protected.get(each.name) or PRUNED
        decisions.append(Decision(each, kept=rule != PRUNED, rule=rule))
    return decisions


def _protected(archives: Iterable[Archive]) -> dict[str, str]:
    """The newest complete archive, and the newest of all if that is a partial one."""
    finished = _newest_first(each for each in archives if each.finished)
    good = next((each for each in finished if not each.partial), None)
    protected = {good.name: NEWEST_GOOD} if good else {}
    if finished and finished[0].partial:
        protected[finished[0].name] = NEWEST_PARTIAL
    return protected


def _newest_first(archives: Iterable[Archive]) -> list[Archive]:
    return sorted(archives, key=lambda each: (each.time, each.name), reverse=True)
