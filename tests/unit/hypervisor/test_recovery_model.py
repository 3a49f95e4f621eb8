"""Journal, plan and deeds together, in a small model of libvirt: killed anywhere, called again, nothing is lost.

The model has one disk, whose whole content is a number. Its guest counts up; somebody pulls plugs, undefines, redefines
and kills the recovery between any two of its deeds. The last number that a guest wrote must be in the base at the end,
or a person was asked.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.hypervisor.recovery_plan import Act, Content, Job, Place, Seen, Step, View, plan
from infra.model import ImageKind, JournalEntry, Overlay, Phase

OVERLAY = Overlay("vda", "/i/a.qcow2", ImageKind.FILE, "qcow2", "/i/a.vmborg.qcow2")
ENTRY = JournalEntry("r", "u", "n", "h", datetime(2026, 1, 1, tzinfo=UTC), Phase.PREPARED, (OVERLAY,))
ROUNDS = 6


class Killed(Exception):
    """The recovering process died here."""


@dataclass
class World:
    """One disk of one domain."""

    base: int = 0  # what the base holds
    overlay: int | None = None  # what the overlay holds, None for nothing
    exists: bool = False  # the overlay's file
    live: Place = Place.BASE  # NONE: it does not run
    inactive: Place = Place.BASE  # NONE: transient or undefined
    copied: bool = False  # a block job of ours, ready
    base_written: bool = False  # by a guest, after the snapshot
    base_last: bool = False  # the base was written to later than the overlay
    stamp: int = 0  # of the overlay's file: moves with each write
    starts: int = 1

    @property
    def life(self) -> str:
        """Another one for each start."""
        return f"qemu {self.starts}"

    def view(self, entry: JournalEntry) -> View:
        """What the recovery sees."""
        asked = dict(entry.pivoting).get("vda")
        pivoted = self.live is Place.BASE and asked == self.life
        as_settled = any(then == self.stamp or not self.exists for _, then, _ in entry.settled)
        settled = self.live is not Place.OVERLAY and (pivoted or as_settled)
        pivot_asked = self.live is not Place.OVERLAY and asked is not None and not pivoted
        in_doubt = pivot_asked and self.live is Place.NONE and not settled and self.overlay is not None
        held = Content.EMPTY if self.overlay is None or (in_doubt and self.overlay == self.base) else Content.DATA
        seen = Seen(
            OVERLAY,
            self.live,
            self.inactive,
            Job.OURS if self.copied else Job.NONE,
            held if self.exists else Content.MISSING,
            settled=settled,
            pivot_asked=pivot_asked,
            base_ahead=in_doubt and self.base_last,
            base_newer=self.base_written,
            users=(),
        )
        return View(entry.phase, (seen,))


class Recovery:
    """The deeds of each step, in their order; `deeds` more of them may be done before the process is killed."""

    def __init__(self, world: World, entry: JournalEntry, deeds: int) -> None:
        self.world = world
        self.entry = entry
        self.deeds = deeds

    def deed(self) -> None:
        """One deed is about to be done."""
        if self.deeds == 0:
            raise Killed
        self.deeds -= 1

    def run(self) -> list[Step]:
        """As put_back does it; returns what it could not do."""
        for _ in range(ROUNDS):
            view = self.world.view(self.entry)
            if self.world.live is Place.OVERLAY:
                pending = self.entry.pivoting if self.world.copied else ()
                self.entry = replace(self.entry, pivoting=pending, settled=())
            steps = plan(view)
            if not steps or steps[0].act is Act.REFUSE:
                return list(steps)
            self.do(steps[0].act)
        raise AssertionError(f"no end in {ROUNDS} rounds: {self.world}")

    def do(self, act: Act) -> None:
        """One step."""
        world = self.world
        self.deed()
        match act:
            case Act.COMMIT_LIVE:
                self.commit_live()
            case Act.COMMIT_OFFLINE:
                self.commit_offline()
            case Act.REDEFINE:
                self.redefine()
            case Act.UNLINK:
                assert Place.OVERLAY not in (world.live, world.inactive)
                self.settle()
                self.deed()
                world.exists, world.overlay = False, None
            case _:
                raise AssertionError(act)

    def commit_live(self) -> None:
        """Job, pivot; libvirt corrects the definition with the pivot."""
        world = self.world
        assert world.live is Place.OVERLAY
        self.entry = replace(self.entry, phase=Phase.PUTTING_BACK)
        self.deed()
        self.copy()
        world.copied = True
        self.deed()
        self.entry = replace(self.entry, pivoting=(("vda", world.life),))
        self.deed()
        self.copy()
        world.copied, world.live = False, Place.BASE
        self.redefine()
        self.deed()
        self.settle()

    def settle(self) -> None:
        """The journal says that the base holds everything."""
        self.entry = replace(self.entry, pivoting=(), settled=(("vda", self.world.stamp, 0),))

    def commit_offline(self) -> None:
        """qemu-img empties the overlay at the end."""
        assert self.world.live is Place.NONE
        assert self.world.exists
        self.entry = replace(self.entry, phase=Phase.PUTTING_BACK)
        self.deed()
        self.copy()
        self.deed()
        self.world.overlay = None
        self.world.stamp += 1
        self.deed()
        self.redefine()
        self.deed()
        self.settle()

    def copy(self) -> None:
        """The overlay's content goes into the base."""
        if self.world.overlay is not None:
            self.world.base_last |= self.world.base != self.world.overlay
            self.world.base = self.world.overlay

    def redefine(self) -> None:
        """The definition of the next start names the base."""
        if self.world.inactive is Place.OVERLAY:
            self.world.inactive = Place.BASE


class Life(RuleBasedStateMachine):
    """A domain's life from the journal's first line to its last."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.entry = ENTRY
        self.latest = 0
        self.or_else: int | None = None  # the base's own last number, while a guest runs on an older overlay
        self.asked = False
        self.meddled = False  # somebody did what may need a person's decision

    @initialize(persistent=st.booleans(), reach=st.integers(0, 2))
    def begin(self, *, persistent: bool, reach: int) -> None:
        """A run dies before its snapshot, between snapshot and journal, or after both."""
        self.world.inactive = Place.BASE if persistent else Place.NONE
        if reach:
            self.world.exists, self.world.live = True, Place.OVERLAY
            self.world.inactive = Place.OVERLAY if persistent else Place.NONE
        if reach == 2:
            self.entry = replace(self.entry, phase=Phase.SNAPSHOTTED)

    @precondition(lambda self: self.world.live is not Place.NONE)
    @rule()
    def write(self) -> None:
        """The guest counts."""
        self.latest = max(self.latest, self.or_else or 0) + 1
        self.or_else = None
        if self.world.live is Place.OVERLAY:
            self.world.overlay, self.world.base_last = self.latest, False
            self.world.stamp += 1
        else:
            self.world.base, self.world.base_last = self.latest, True
            self.world.base_written |= self.world.exists

    @precondition(lambda self: self.world.live is Place.OVERLAY and self.world.copied and self.entry.pivoting)
    @rule()
    def pivot_unseen(self) -> None:
        """qemu does what it was asked for while libvirtd is dead; the guest goes on on the base; then qemu dies too."""
        self.latest += 1
        self.or_else = None
        self.world.base, self.world.base_last = self.latest, True
        self.world.live, self.world.copied = Place.NONE, False
        self.meddled = True

    @precondition(lambda self: self.world.live is not Place.NONE)
    @rule()
    def pull_the_plug(self) -> None:
        """The guest ends; so does its job."""
        self.meddled |= bool(self.entry.pivoting)  # nobody saw whether the pivot happened, and its qemu is gone
        self.world.live, self.world.copied = Place.NONE, False

    @precondition(lambda self: self.world.live is Place.NONE and self.world.inactive is not Place.NONE)
    @rule()
    def start(self) -> None:
        """A persistent domain starts on what its definition names, if that is there."""
        if self.world.inactive is Place.BASE or self.world.exists:
            self.world.live = self.world.inactive
            self.world.starts += 1
            if self.world.live is Place.OVERLAY and self.world.overlay is not None:
                if self.world.overlay != self.world.base and self.world.base_last:
                    # Somebody's definition of the window took it back. Until it writes, both numbers are as good.
                    self.or_else, self.meddled = self.world.base, True
                self.latest = self.world.overlay  # what this guest sees is what there is for it

    @precondition(lambda self: self.world.live is Place.NONE)
    @rule()
    def create_anew_on_base(self) -> None:
        """A transient domain's manager starts it from its own old definition, without what the overlay holds."""
        if self.world.inactive is Place.NONE:
            self.meddled |= self.world.overlay is not None
            self.world.live = Place.BASE
            self.world.starts += 1

    @rule()
    def undefine(self) -> None:
        """Running it becomes transient, shut off it is gone."""
        self.meddled |= bool(self.entry.pivoting)
        self.world.inactive = Place.NONE

    @precondition(lambda self: self.world.live is Place.OVERLAY and self.world.inactive is Place.OVERLAY)
    @rule()
    def redefine_from_old_xml(self) -> None:
        """An administrator defines what he saved before the backup."""
        self.world.inactive = Place.BASE
        self.meddled = True

    @precondition(lambda self: self.world.inactive is Place.BASE and self.entry.settled)
    @rule()
    def redefine_from_xml_of_the_window(self) -> None:
        """An administrator defines what he dumped in mid-backup, whether the overlay is gone already or not."""
        self.world.inactive = Place.OVERLAY

    @rule(deeds=st.integers(0, 9))
    def recover(self, deeds: int) -> None:
        """A recovery that is killed after some deeds."""
        recovery = Recovery(self.world, self.entry, deeds)
        try:
            self.asked = bool(recovery.run())
        except Killed:
            self.asked = False
        self.entry = recovery.entry

    @invariant()
    def in_the_end_it_is_back(self) -> None:
        """A recovery that nobody kills puts the domain on its base with the guest's last number, or asks a person."""
        world = replace(self.world)
        left = Recovery(world, self.entry, deeds=-1).run()
        if left:
            assert self.meddled, f"refused without need: {left[0].reason} {self.world}"
            return
        assert world.live is not Place.OVERLAY
        assert world.inactive is not Place.OVERLAY
        assert not world.exists
        assert world.base in {self.latest, self.or_else}, f"{world} {self.world}"

    @invariant()
    def twice_is_once(self) -> None:
        """Recovering again does nothing more."""
        world = replace(self.world)
        first = Recovery(world, self.entry, deeds=-1)
        first.run()
        again = replace(world)
        Recovery(again, first.entry, deeds=-1).run()
        assert again == world


Life.TestCase.settings = settings(max_examples=250, stateful_step_count=14, deadline=None)
TestLife = Life.TestCase
