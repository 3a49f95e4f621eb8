"""Our plan against borg's own: for every source, archive by archive, rule by rule."""

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from infra.borg.names import archive_glob, dump_glob
from infra.retention.plan import NEWEST_GOOD, plan_source
from infra.retention.rules import KeepRules
from tasks.retention.sources import DUMP, SourceArchives, read_holding
from tests.integration.borg_prune import COUNTS, borg_says, repository_in, two_years
from tests.integration.many import Wanted, WantedDump, fill

pytestmark = pytest.mark.integration

NAMES = ["web", "web-2", "web.2", "web*", "we?", "web[1]", "web@home", "-web", "{now}", "web/2", "wëb 2", "%2A", "*"]

DUMP_HOSTS = ["web", "web-2", "we?", "wëb 2"]


def we_say(source: SourceArchives, rules: KeepRules, now: datetime) -> dict[str, str]:
    """The same from our planner."""
    return {each.archive.name: each.rule for each in plan_source(source.archives, rules, now=now)}


def some_rules(chance: random.Random) -> KeepRules:
    """Rules of which at least one keeps something, as a person or a machine may write them."""
    counts = {name: chance.choice([0, 0, 1, 2, 5]) for name in (*COUNTS, "yearly")}
    within = chance.choice([None, None, timedelta(hours=chance.randrange(1, 2000))])
    if within is None and not any(counts.values()):
        counts["daily"] = 3
    return KeepRules(within=within, **counts)


def some_times(chance: random.Random, now: datetime) -> set[datetime]:
    """Instants of some months: regular, in bursts, several in a second, or few."""
    start = now - timedelta(hours=chance.randrange(0, 900), minutes=30)
    step = chance.choice([timedelta(seconds=1), timedelta(minutes=7), timedelta(hours=5), timedelta(days=1)])
    count = chance.choice([1, 2, 9, 60])
    return {start - step * index * chance.choice([1, 1, 3]) for index in range(count)}


def test_the_plan_is_borgs(tmp_path: Path) -> None:
    """For VMs and dump hosts with any names, histories and rules the plan equals that of borg prune, rule by rule.

    One difference is wanted: the newest good archive stays where `within` alone would have borg delete everything.
    """
    repository, chance, now = repository_in(tmp_path), random.Random(20261124), datetime.now(UTC).replace(microsecond=0)
    wanted = [
        Wanted(str(UUID(int=index << 96)), name, when)
        for index, name in enumerate(NAMES * 2)
        for when in some_times(chance, now)
    ]
    dumps = [WantedDump(name, when) for name in DUMP_HOSTS for when in some_times(chance, now)]
    fill(repository, [*wanted, *dumps])
    holding = read_holding("main", repository.archives())
    assert len(holding.sources) == 2 * len(NAMES) + len(DUMP_HOSTS)
    for source in holding.sources:
        rules = some_rules(chance)
        glob = dump_glob(source.name) if source.kind == DUMP else archive_glob(source.id, source.name)
        expected = borg_says(repository, glob, rules)
        found = we_say(source, rules, now)
        assert set(found) == set(expected) == {archive.name for archive in source.archives}
        kept_for_safety = {name for name, rule in found.items() if rule == NEWEST_GOOD}
        assert kept_for_safety <= {source.archives[-1].name}
        assert {name: rule for name, rule in found.items() if name not in kept_for_safety} == {
            name: rule for name, rule in expected.items() if name not in kept_for_safety
        }


def test_two_years_of_twenty_vms(tmp_path: Path) -> None:
    """14,600 archives are read and planned in less than 30 s, and the plan of every source is borg's."""
    repository, now = repository_in(tmp_path), datetime.now(UTC).replace(microsecond=0)
    rules = KeepRules(daily=7, weekly=4, monthly=6)
    uuids = two_years(repository, now)
    begun = time.monotonic()
    holding = read_holding("main", repository.archives())
    plans = {source.name: we_say(source, rules, now) for source in holding.sources}
    assert time.monotonic() - begun < 30
    assert sum(map(len, plans.values())) == 14_600
    for name, uuid in uuids.items():
        assert plans[name] == borg_says(repository, archive_glob(uuid, name), rules)
