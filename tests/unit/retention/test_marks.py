"""Holds and retirements as marks in a repository: what is read from them, and when they end."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.borg.comment import parse_comment, render_comment
from infra.borg.names import parse_archive_name
from infra.retention.holds import HOLD, RETIRED, held_names, mark_facts, mark_name, read_mark, spent_marks
from infra.retention.retired import (
    RetiredPolicy,
    Sight,
    Stage,
    host_is_back,
    is_back,
    may_retire,
    may_retire_host,
    stage,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
UUID = "6f1c2a9e-0000-4000-8000-000000000001"
POLICY = RetiredPolicy(grace=90 * DAY, keep=1, forget_after=1000 * DAY)


@given(st.sampled_from([HOLD, RETIRED]), st.text(min_size=1, max_size=300), st.text(max_size=20))
def test_a_mark_survives_its_comment(kind: str, subject: str, host: str) -> None:
    """What a mark says of any subject is read back from its archive's name and comment, and is no VM's archive."""
    name = mark_name(kind, subject, NOW)
    comment = render_comment(mark_facts(kind, subject, host=host, until=NOW + DAY))
    mark = read_mark(name, parse_comment(comment))
    assert mark is not None
    assert (mark.kind, mark.subject, mark.host, mark.time, mark.until) == (kind, subject, host, NOW, NOW + DAY)
    assert parse_archive_name(name) is None


def test_a_mark_that_contradicts_itself_is_none() -> None:
    """A name and a comment that do not belong together mark nothing; so does everybody else's archive."""
    name, facts = mark_name(HOLD, "a", NOW), mark_facts(HOLD, "a", host="kvm1")
    wrong = [
        read_mark(name, {**facts, "subject": "b"}),
        read_mark(name, {**facts, "mark": RETIRED}),
        read_mark(name, {**facts, "until": "soon"}),
        read_mark(name, {}),
        read_mark("hold", facts),
        read_mark("vm.6f1c2a9e.web@2026-01-31T02:00:00Z", facts),
    ]
    assert wrong == [None] * len(wrong)


def test_a_hold_ends_by_its_date() -> None:
    """A hold ends at its moment, without one never; then, and when its archive is gone, it is spent."""
    marks = [
        read_mark(mark_name(HOLD, subject, NOW), mark_facts(HOLD, subject, host="", until=until))
        for subject, until in (("a", NOW + DAY), ("b", None), ("c", None))
    ]
    found = [mark for mark in marks if mark]
    assert held_names(found, NOW) == {"a", "b", "c"}
    assert held_names(found, NOW + DAY) == {"b", "c"}
    assert spent_marks(found, ["a", "b"], NOW) == [mark_name(HOLD, "c", NOW)]
    assert spent_marks(found, ["a", "b", "c"], NOW + DAY) == [mark_name(HOLD, "a", NOW)]


@pytest.mark.parametrize(
    ("sight", "gone"),
    [
        (Sight("kvm1", present={"other"}), True),
        (Sight("kvm1", present={UUID}), False),
        (Sight("kvm1", present=None), False),
        (Sight("kvm2", present={"other"}), False),
        (Sight("", present=set()), False),
        (Sight("kvm1", present=set(), configured={"web"}), False),
    ],
    ids=["its owner does not see it", "there", "libvirt is silent", "a stranger", "nobody", "in the configuration"],
)
def test_only_its_owner_retires_a_source(sight: Sight, *, gone: bool) -> None:
    """A source is retired by the hypervisor of its newest archive alone, and only when libvirt says that it is gone."""
    assert may_retire(sight, uuid=UUID, vm="web", owner="kvm1") is gone


@pytest.mark.parametrize(
    ("sight", "gone", "back"),
    [
        (Sight("kvm1", None, dump_hosts={"other"}), True, False),
        (Sight("kvm1", None, dump_hosts={"db"}), False, True),
        (Sight("kvm1", {UUID}), False, False),
        (Sight("kvm2", None, dump_hosts={"other"}), False, False),
        (Sight("kvm2", None, dump_hosts={"db"}), False, False),
        (Sight("", None, dump_hosts=()), False, False),
    ],
    ids=["not configured", "configured", "not asked", "a stranger", "the same name elsewhere", "nobody"],
)
def test_only_its_hypervisor_retires_a_dump_host(sight: Sight, *, gone: bool, back: bool) -> None:
    """A dump host is gone, or back, by the configuration of the hypervisor that pulled it, and by nothing else."""
    assert may_retire_host(sight, host="db", owner="kvm1") is gone
    assert host_is_back(sight, host="db", owner="kvm1") is back
    assert not may_retire_host(sight, host="db", owner="")


def test_a_renamed_vm_is_not_gone() -> None:
    """The UUID counts: under another name a VM is as present as before."""
    assert not may_retire(Sight("kvm1", present={UUID}), uuid=UUID, vm="its old name", owner="kvm1")
    assert is_back(Sight("kvm2", present={UUID}), UUID)
    assert not is_back(Sight("kvm2", present=None), UUID)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (0, Stage.RETIRED),
        (89, Stage.RETIRED),
        (90, Stage.THINNED),
        (999, Stage.THINNED),
        (1000, Stage.FORGOTTEN),
    ],
)
def test_a_retired_source_ages(days: int, expected: Stage) -> None:
    """Whole until the grace is over, thinned then, forgotten only by a policy that says so."""
    newest = NOW - DAY
    assert stage(NOW, newest=newest, policy=POLICY, now=NOW + days * DAY) is expected
    never = RetiredPolicy(grace=POLICY.grace, keep=1)
    assert stage(NOW, newest=newest, policy=never, now=NOW + days * DAY) is not Stage.FORGOTTEN


def test_a_newer_archive_undoes_a_retirement() -> None:
    """A backup after the mark, made anywhere, makes the source active; so does having no mark."""
    late = NOW + 500 * DAY
    assert stage(NOW, newest=NOW + DAY, policy=POLICY, now=late) is Stage.ACTIVE
    assert stage(None, newest=NOW, policy=POLICY, now=late) is Stage.ACTIVE
