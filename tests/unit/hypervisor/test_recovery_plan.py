"""The recovery planner: what is done next in each state that a dead run can leave."""

from dataclasses import replace
from itertools import product

import pytest

from infra.hypervisor.recovery_plan import Act, Content, Job, Place, Seen, View, place, plan
from infra.model import ImageKind, Overlay, Phase

OVERLAY = Overlay("vda", "/i/a.qcow2", ImageKind.FILE, "qcow2", "/i/a.vmborg.qcow2")
OTHER = Overlay("vdb", "/i/b.raw", ImageKind.FILE, "raw", "/i/b.vmborg.qcow2")


def seen(live: Place, inactive: Place, content: Content = Content.DATA, **more: object) -> Seen:
    """A looked-at overlay that no other domain uses."""
    return replace(Seen(OVERLAY, live, inactive, content=content, users=()), **more)


def acts(*overlays: Seen, phase: Phase = Phase.SNAPSHOTTED, resumable: bool = False) -> list[Act]:
    """What is planned, in order."""
    return [step.act for step in plan(View(phase, overlays, resumable=resumable))]


LIVE, BASE, NONE, STRANGE = Place.OVERLAY, Place.BASE, Place.NONE, Place.STRANGE
CASES = {
    "running on it": (seen(LIVE, LIVE), [Act.COMMIT_LIVE]),
    "running on it, the definition not": (seen(LIVE, BASE), [Act.COMMIT_LIVE]),
    "running on it, transient": (seen(LIVE, NONE), [Act.COMMIT_LIVE]),
    "a dead run's job goes on": (seen(LIVE, LIVE, job=Job.OURS), [Act.COMMIT_LIVE]),
    "somebody's job": (seen(LIVE, LIVE, job=Job.FOREIGN), [Act.WAIT]),
    "somebody's snapshot on it": (seen(STRANGE, STRANGE), [Act.REFUSE]),
    "pivoted, the definition is behind": (seen(BASE, LIVE), [Act.REDEFINE]),
    "pivoted by a dead run": (seen(BASE, BASE, settled=True), [Act.UNLINK]),
    "pivoted perhaps, started anew": (seen(BASE, BASE, pivot_asked=True), [Act.REFUSE]),
    "pivoted by somebody else": (seen(BASE, BASE), [Act.REFUSE]),
    "off on it": (seen(NONE, LIVE), [Act.COMMIT_OFFLINE]),
    "off on it, pivot asked and not done": (seen(NONE, LIVE, pivot_asked=True), [Act.COMMIT_OFFLINE]),
    "off on it, perhaps moved before it ended": (seen(NONE, LIVE, pivot_asked=True, base_ahead=True), [Act.REFUSE]),
    "off on it, the file is gone": (seen(NONE, LIVE, Content.MISSING), [Act.REFUSE]),
    "off, put back, defined anew from the window's XML": (
        seen(NONE, LIVE, Content.MISSING, settled=True),
        [Act.REDEFINE],
    ),
    "off, pivoted, the definition lost with the power": (seen(NONE, LIVE, settled=True), [Act.REDEFINE]),
    "off on it, another process has it": (seen(NONE, LIVE, Content.IN_USE), [Act.REFUSE]),
    "off, committed, not yet defined": (seen(NONE, LIVE, Content.EMPTY), [Act.COMMIT_OFFLINE]),
    "off, put back, the file left": (seen(NONE, BASE, Content.EMPTY), [Act.UNLINK]),
    "off, pivoted before": (seen(NONE, BASE, settled=True), [Act.UNLINK]),
    "off, pivoted perhaps": (seen(NONE, BASE, pivot_asked=True), [Act.REFUSE]),
    "off, defined anew to the base": (seen(NONE, BASE), [Act.REFUSE]),
    "off, another image over it": (seen(NONE, STRANGE), [Act.REFUSE]),
    "gone": (seen(NONE, NONE), [Act.COMMIT_OFFLINE]),
    "gone, never written": (seen(NONE, NONE, Content.EMPTY), [Act.UNLINK]),
    "gone after its pivot": (seen(NONE, NONE, settled=True), [Act.UNLINK]),
    "gone while it was pivoted": (seen(NONE, NONE, pivot_asked=True), [Act.REFUSE]),
    "gone, its base is used": (seen(NONE, NONE, base_users=("x",)), [Act.REFUSE]),
    "gone, its base was written to": (seen(NONE, NONE, base_newer=True), [Act.REFUSE]),
    "gone, used by another": (seen(NONE, NONE, users=("x",)), [Act.REFUSE]),
    "left over, used by another": (seen(BASE, BASE, Content.EMPTY, users=("x",)), [Act.REFUSE]),
    "left over, nobody asked who uses it": (seen(BASE, BASE, Content.EMPTY, users=None), [Act.REFUSE]),
    "no overlay of ours at its path": (seen(BASE, BASE, Content.STRANGE), [Act.REFUSE]),
    "nothing left": (seen(BASE, BASE, Content.MISSING), []),
    "gone with everything": (seen(NONE, NONE, Content.MISSING), []),
}


@pytest.mark.parametrize(("state", "expected"), CASES.values(), ids=CASES.keys())
def test_each_state_has_its_step(state: Seen, expected: list[Act]) -> None:
    """One disk in one state gets exactly this."""
    assert acts(state) == expected


@pytest.mark.parametrize(
    ("phase", "expected"),
    [(Phase.PREPARED, Act.UNLINK), (Phase.SNAPSHOTTED, Act.REFUSE), (Phase.PUTTING_BACK, Act.REFUSE)],
)
def test_an_unfinished_image_is_removed_before_the_snapshot_only(phase: Phase, expected: Act) -> None:
    """A file whose creation was cut off is ours to remove while nothing was ever written to an overlay."""
    assert acts(seen(BASE, BASE, Content.UNFINISHED), phase=phase) == [expected]


def test_urgent_steps_come_first() -> None:
    """Commits come before removals, a resume after them (they give space back), what needs a person last."""
    refused = replace(seen(BASE, BASE, Content.STRANGE), overlay=OTHER)
    third = replace(seen(BASE, BASE, Content.EMPTY), overlay=replace(OTHER, target="vdc"))
    assert acts(refused, third, resumable=True) == [Act.UNLINK, Act.RESUME, Act.REFUSE]
    assert acts(refused, third, seen(LIVE, LIVE), resumable=True) == [Act.COMMIT_LIVE, Act.UNLINK, Act.REFUSE]


@pytest.mark.parametrize("live", [LIVE, STRANGE])
def test_a_guest_is_not_resumed_on_an_overlay(live: Place) -> None:
    """A guest that an I/O error paused stays paused until it is off our overlays."""
    assert Act.RESUME not in acts(seen(live, live, job=Job.FOREIGN), resumable=True)


YES_NO = (False, True)
ALL = [
    Seen(OVERLAY, live, inactive, job, content, settled, asked, ahead, newer, users, base_users)
    for live, inactive, job, content, settled, asked, ahead, newer, users, base_users in product(
        Place, Place, Job, Content, YES_NO, YES_NO, YES_NO, YES_NO, (None, (), ("x",)), ((), ("x",))
    )
]


@pytest.mark.parametrize("phase", Phase)
def test_no_state_at_all_breaks_the_invariants(phase: Phase) -> None:
    """In every combination: nothing in use is removed, nothing stale is committed, nothing is done to the strange."""
    for state in ALL:
        for step in plan(View(phase, (state,))):
            if step.act is Act.UNLINK:
                assert state.users == ()
                assert OVERLAY.path
                assert LIVE not in (state.live, state.inactive)
                assert state.content in (Content.EMPTY, Content.UNFINISHED) or (
                    state.content is Content.DATA and state.settled
                )
            if step.act is Act.COMMIT_OFFLINE:
                assert state.live is not LIVE
                assert state.live is not BASE
                assert state.content in (Content.EMPTY, Content.DATA)
                assert not state.settled
                assert not (state.content is Content.DATA and state.base_ahead and state.inactive is LIVE)
                assert state.inactive is LIVE or not (state.pivot_asked or state.base_newer or state.base_users)
            if STRANGE is state.live:
                assert step.act is Act.REFUSE
            if step.act is Act.REFUSE:
                assert step.reason


def test_no_state_is_passed_over() -> None:
    """Without a step, no definition names the overlay and its file is gone."""
    for state in ALL:
        if not plan(View(Phase.SNAPSHOTTED, (state,))):
            assert (state.live, state.inactive, state.content) in [
                (live, inactive, Content.MISSING) for live in (BASE, NONE) for inactive in (BASE, NONE)
            ]


PLACES = {
    "on it": ({"vda": (OVERLAY.path, OVERLAY.base)}, LIVE),
    "on it, over a template": ({"vda": (OVERLAY.path, OVERLAY.base, "/i/template")}, LIVE),
    "on the base": ({"vda": (OVERLAY.base, "/i/template")}, BASE),
    "a snapshot over the base": ({"vda": ("/i/new", OVERLAY.base)}, BASE),
    "a snapshot over it": ({"vda": ("/i/new", OVERLAY.path, OVERLAY.base)}, STRANGE),
    "something between it and the base": ({"vda": (OVERLAY.path, "/i/new", OVERLAY.base)}, STRANGE),
    "on another disk": ({"vda": (OVERLAY.base,), "vdb": (OVERLAY.path, OVERLAY.base)}, STRANGE),
    "another image": ({"vda": ("/i/other",)}, NONE),
    "disk gone": ({"vdb": ("/i/other",)}, NONE),
    "no definition": ({}, NONE),
}


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("chains", "expected"), PLACES.values(), ids=PLACES.keys())
def test_where_a_definition_has_the_disk(
    chains: dict[str, tuple[str, ...]], expected: Place, *, complete: bool
) -> None:
    """A disk is on its overlay only if that is its active image and lies directly on the recorded base."""
    assert place(chains, OVERLAY, complete=complete) is expected


def test_only_a_live_definition_must_name_the_base() -> None:
    """An inactive definition need not list backing files; a live one that does not is strange."""
    assert place({"vda": (OVERLAY.path,)}, OVERLAY, complete=False) is LIVE
    assert place({"vda": (OVERLAY.path,)}, OVERLAY, complete=True) is STRANGE
