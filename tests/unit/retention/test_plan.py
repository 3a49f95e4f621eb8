"""What retention may never do, whatever the archives and the rules."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infra.retention.plan import ABANDONED_AFTER, Archive, Decision, plan_source, thin_source
from infra.retention.rules import KeepRules, kept_by_rules

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)

rules = st.builds(
    KeepRules,
    within=st.none() | st.timedeltas(min_value=timedelta(seconds=1), max_value=400 * DAY),
    last=st.integers(0, 4),
    hourly=st.integers(0, 4),
    daily=st.integers(0, 9),
    weekly=st.integers(0, 6),
    monthly=st.integers(0, 6),
    yearly=st.integers(0, 3),
)
times = st.datetimes(
    min_value=datetime(2024, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2026, 11, 24, 12),  # noqa: DTZ001 - as above
    timezones=st.just(UTC),
)
sources = st.lists(
    st.builds(Archive, name=st.uuids().map(str), time=times, finished=st.booleans(), partial=st.booleans()),
    max_size=40,
    unique_by=lambda archive: archive.name,
)


def kept(decisions: Sequence[Decision]) -> set[str]:
    """The names of the archives that stay."""
    return {each.archive.name for each in decisions if each.kept}


def newest_good(archives: Sequence[Archive]) -> Archive | None:
    """The newest archive that is finished and complete."""
    good = [each for each in archives if each.finished and not each.partial]
    return max(good, key=lambda each: (each.time, each.name), default=None)


@given(sources, rules)
def test_every_archive_has_one_fate(archives: list[Archive], rules: KeepRules) -> None:
    """Each archive is decided about once, newest first, with a rule; what nothing keeps is called pruned."""
    decisions = plan_source(archives, rules, now=NOW)
    assert sorted(each.archive.name for each in decisions) == sorted(each.name for each in archives)
    assert [each.archive.time for each in decisions] == sorted((each.time for each in archives), reverse=True)
    assert all(each.rule and (each.rule == "pruned") == (not each.kept) for each in decisions)


@given(sources, rules)
def test_no_rule_removes_the_newest_good_archive(archives: list[Archive], rules: KeepRules) -> None:
    """The newest complete archive stays under any rules, none among them, and after a retirement's grace."""
    best = newest_good(archives)
    for decisions in (plan_source(archives, rules, now=NOW), thin_source(archives, 1, now=NOW)):
        assert best is None or best.name in kept(decisions)


@given(sources, rules)
def test_a_source_with_finished_archives_never_becomes_empty(archives: list[Archive], rules: KeepRules) -> None:
    """If anything finished is there, partial or not, something finished stays, and the newest of all among it."""
    finished = [each for each in archives if each.finished]
    for decisions in (plan_source(archives, rules, now=NOW), thin_source(archives, 1, now=NOW)):
        newest = max(finished, key=lambda each: (each.time, each.name), default=None)
        assert newest is None or newest.name in kept(decisions)


@given(sources, rules)
def test_partial_archives_do_not_count(archives: list[Archive], rules: KeepRules) -> None:
    """The complete archives of a source fare as if it had no partial and no unfinished ones."""
    complete = [each for each in archives if each.finished and not each.partial]
    with_them = {name for name in kept(plan_source(archives, rules, now=NOW)) if name in {c.name for c in complete}}
    assert with_them == kept(plan_source(complete, rules, now=NOW))


@given(sources, rules, st.data())
def test_a_hold_keeps_its_archive_and_changes_no_other(
    archives: list[Archive], rules: KeepRules, data: st.DataObject
) -> None:
    """What is held stays; holding and releasing it does not change the fate of another archive."""
    held = data.draw(st.sets(st.sampled_from([each.name for each in archives])) if archives else st.just(set()))
    plain, with_holds = plan_source(archives, rules, now=NOW), plan_source(archives, rules, now=NOW, held=held)
    assert kept(with_holds) == kept(plain) | held


@given(sources, sources, rules)
def test_sources_do_not_meet(one: list[Archive], other: list[Archive], rules: KeepRules) -> None:
    """Each archive's fate depends on its own source alone: planning takes one source, and mixing two would differ."""
    assert kept(plan_source(one, rules, now=NOW)) <= {each.name for each in one}
    both = kept(plan_source(one, rules, now=NOW)) | kept(plan_source(other, rules, now=NOW))
    assert len([each for each in (newest_good(one), newest_good(other)) if each and each.name not in both]) == 0


@given(sources)
def test_an_unfinished_archive_is_left_to_its_run(archives: list[Archive]) -> None:
    """Unfinished archives stay until no run can have them any more; no keep rule has a say."""
    for decision in plan_source(archives, KeepRules(last=99), now=NOW):
        if not decision.archive.finished:
            assert decision.kept == (NOW - decision.archive.time <= ABANDONED_AFTER)


@given(st.lists(times, min_size=1, max_size=40, unique=True), rules)
def test_more_is_kept_by_more(found: list[datetime], rules: KeepRules) -> None:
    """Keeping one more day keeps at least as many archives."""
    more = replace(rules, daily=rules.daily + 1)
    assert len(kept_by_rules(found, more, NOW)) >= len(kept_by_rules(found, rules, NOW))


def test_the_rules_of_a_year() -> None:
    """Two years of nightly archives under daily 7, weekly 4, monthly 6 are 17: as many as the numbers, no more."""
    nights = [NOW - index * DAY for index in range(730)]
    reasons = kept_by_rules(nights, KeepRules(daily=7, weekly=4, monthly=6), NOW)
    assert [str(reasons[index]) for index in range(7)] == [f"daily #{number}" for number in range(1, 8)]
    assert sorted(reason.rule for reason in reasons.values()) == ["daily"] * 7 + ["monthly"] * 6 + ["weekly"] * 4
