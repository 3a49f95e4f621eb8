"""How the disks of one backup are read: whole, as their image files are, or only what changed, as segments.

What changed is known from the checkpoint of an earlier backup and from what is remembered of it. Both are made anew in
each run, and count only when an archive of that run was verified; until then the next run goes by the former ones.
"""

import logging
import random
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from infra.borg.segments import SegmentSource
from infra.errors import DiskMissing, ImageError, StorageError, VmborgError
from infra.hypervisor.checkpoints import (
    checkpoint_name,
    drop_checkpoints,
    jealous,
    make_checkpoint,
    unsupported,
)
from infra.manifest import SEGMENTS_DIR
from infra.model import Disk, DomainFacts, ImageKind, ReadMode
from infra.qcow2.image import Qcow2Image
from infra.segments.decide import DiskReading, decide, sample
from infra.segments.state import VmState, read_state
from infra.segments.view import SegmentView, Served, segment_view, supported
from tasks.job import BackupJob
from tasks.memory import state_path
from tasks.units import size

logger = logging.getLogger("vmborg.backup")

_SNAPSHOTS = "it has internal snapshots, which only the image itself holds"


@dataclass(frozen=True, slots=True)
class HowRead:
    """What is told of one disk."""

    target: str
    mode: str  # incremental, full, whole
    reason: str


class Reading:
    """One run's reading. A context manager: at its end nothing is mounted any more."""

    def __init__(self, job: BackupJob) -> None:
        self._job = job
        self._facts: DomainFacts
        self._stack = ExitStack()
        self._view: SegmentView | None = None
        self.state: VmState | None = None
        self._lost = ""
        self.whole: dict[str, str] = {}  # disk target: why it is read whole
        self._spared: frozenset[str] = frozenset()
        self.disks: tuple[DiskReading, ...] = ()
        self.checkpoint = ""  # the one that this run made
        self.served: Served | None = None
        self.stood_still = False  # told by who looked at the images after the last copy
        self.doubts = ""  # what was found of segments that changed without a dirty bit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view = None
        self._stack.close()

    # ------------------------------------------------------------------------------------- before the snapshot

    def begin(self, facts: DomainFacts) -> None:
        """See which disks can be read as segments, and remove checkpoints that nothing needs any more."""
        self._facts = facts
        general = self._obstacle(facts)
        self.whole = {disk.target: reason for disk in facts.covered if (reason := general or self._unfit(disk))}
        try:
            self.state = read_state(state_path(self._job.state, self._job.uuid))
        except ValueError as error:
            self._lost = str(error)
            logger.warning("what was remembered of the disks of %s cannot be read: %s", self._job.name, error)
        if facts.checkpoints:
            # qemu cannot go back to an internal snapshot where a bitmap records.
            in_the_way = jealous(facts.checkpoints) or _SNAPSHOTS in self.whole.values()
            self._spared = _below(facts)
            drop_checkpoints(self._job.domain, keep=self._spared if in_the_way else self.to_keep)

    @property
    def has_memory(self) -> bool:
        """Whether there is something to remember of this run, or to forget of an earlier one."""
        return bool(self.disks or self.checkpoint or self.state is not None)

    @property
    def to_keep(self) -> Collection[str]:
        """The checkpoints that the next backup goes by, and those that cannot be removed without harm."""
        return self._spared.union(self.state.checkpoints if self.state else ())

    def _obstacle(self, facts: DomainFacts) -> str:
        """Why every disk is read whole; "" when there is no such reason."""
        if self._job.policy.read is ReadMode.WHOLE:
            return "the policy says `read: whole`"
        if reason := supported() or jealous(facts.checkpoints):
            return reason
        in_the_way = [
            image.path
            for disk in facts.covered
            for image in disk.chain
            if image.content_path.startswith(f"/{SEGMENTS_DIR}/")
        ]
        if in_the_way:
            return f"{in_the_way[0]} is where an archive keeps segments"
        return unsupported(self._job.hypervisor.versions())

    def _unfit(self, disk: Disk) -> str:
        """Why this disk is read whole; "" when it need not be."""
        if disk.target in self._job.policy.whole_disks:
            return "the policy names it in `whole_disks`"
        if disk.base.kind is not ImageKind.FILE:
            return "a block device keeps no dirty bitmap"
        if disk.base.format != "qcow2":
            return f"a {disk.base.format} image keeps no dirty bitmap"
        if len(disk.chain) > 1:
            return "a linked clone is stored with its chain"
        try:
            with Qcow2Image(disk.base.path) as image:
                return _not_by_tables(image)
        except (ImageError, DiskMissing) as error:
            return error.evidence or error.brief

    # ------------------------------------------------------------------------------------- in the frozen window

    @property
    def wants_checkpoint(self) -> str:
        """The name of the checkpoint that this run is going to make of a running domain; "" for none."""
        return checkpoint_name(self._job.run_id) if self._fit else ""

    @property
    def _fit(self) -> tuple[str, ...]:
        return tuple(disk.target for disk in self._facts.covered if disk.target not in self.whole)

    def mark(self) -> None:
        """Make the checkpoint, right before the snapshot: what is written between the two is read twice, never lost."""
        name = self.wants_checkpoint
        if name and make_checkpoint(self._job.domain, self._facts, name=name, targets=self._fit):
            self.checkpoint = name

    # --------------------------------------------------------------------------------------- after the snapshot

    def open(self) -> None:
        """Decide for each disk what is read, and mount it. What cannot be mounted is read whole."""
        readings = [each for target in self._fit if (each := self._decide(target)) is not None]
        if not readings:
            return
        directory = self._job.staging / SEGMENTS_DIR
        try:
            self._view = self._stack.enter_context(segment_view(directory, readings))
        except StorageError as error:
            self.whole |= {each.target: f"{error.brief} {error.evidence}" for each in readings}
            logger.warning("every disk is read whole: %s", error)
            return
        self.disks = tuple(readings)

    def _decide(self, target: str) -> DiskReading | None:
        disk = next(each for each in self._facts.covered if each.target == target)
        previous = self.state.disks.get(target) if self.state else None
        try:
            with Qcow2Image(disk.base.path) as image:
                if reason := _not_by_tables(image):
                    self.whole[target] = reason
                    return None
                every = self._job.policy.full_read_every
                reading = decide(image, previous, target=target, full_read_every=every, lost=self._lost)
                return sample(image, reading, chance=random.SystemRandom())
        except (ImageError, DiskMissing, OSError) as error:
            self.whole[target] = str(getattr(error, "evidence", "") or error)
            return None

    @property
    def source(self) -> SegmentSource | None:
        """What borg reads; None when every disk is read whole."""
        if self._view is None:
            return None
        return SegmentSource(
            path=f"{self._job.staging}/./{SEGMENTS_DIR}",
            prefix=self._view.prefix,
            block=self._job.policy.chunk_size,
            alone=len(self.disks) == len(self._facts.covered),
        )

    @property
    def by_target(self) -> Mapping[str, DiskReading]:
        """The disks that are read as segments."""
        return {each.target: each for each in self.disks}

    @property
    def whole_disks(self) -> tuple[Disk, ...]:
        """The others."""
        return tuple(disk for disk in self._facts.covered if disk.target not in self.by_target)

    def require_live(self) -> None:
        """Raise StorageError unless the mount is there: an empty folder would be archived as well."""
        if self._view is not None:
            self._view.require_live()

    def abandon(self) -> None:
        """End the mount at once: nothing of what is being read is wanted any more."""
        if self._view is not None:
            self._view.abandon()

    def finish(self, *, useful: bool) -> None:
        """End the mount. What was read is known from then on, if it is `useful` to know and the mount did not die."""
        if self._view is None:
            return
        try:
            if useful:
                self.served = self._view.finish()
            else:  # the guest waits on its overlay
                self.abandon()
        except VmborgError as error:
            logger.warning("%s", error)
        self._view = None

    def told(self) -> tuple[HowRead, ...]:
        """How each disk was read, and why."""
        found: list[HowRead] = []
        for disk in self._facts.covered:
            reading = self.by_target.get(disk.target)
            if reading is None:
                found.append(HowRead(disk.target, "whole", self.whole.get(disk.target, "")))
            else:
                found.append(HowRead(disk.target, "full" if reading.full else "incremental", reading.reason))
        return tuple(found)

    def log(self) -> None:
        """Write the decisions to the log."""
        for each in self.told():
            reading = self.by_target.get(each.target)
            of = f" ({size(reading.read_bytes)} of {size(reading.size)})" if reading else ""
            logger.info("%s: %s read%s: %s", each.target, each.mode, of, each.reason)


def _below(facts: DomainFacts) -> frozenset[str]:
    """The bitmaps of images that a disk only lies on, such as the base of somebody's snapshot.

    To remove one of them would write to that image. They go when the snapshot was committed.
    """
    found: set[str] = set()
    for below in [image for disk in facts.covered for image in disk.chain[1:] if image.format == "qcow2"]:
        try:
            with Qcow2Image(below.path) as image:
                found |= {entry.name for entry in image.bitmaps()}
        except (ImageError, DiskMissing, OSError) as error:
            logger.info("no checkpoint is removed, for nobody knows whether %s has its bitmap: %s", below.path, error)
            found |= set(facts.checkpoints)
    return frozenset(found)


def _not_by_tables(image: Qcow2Image) -> str:
    if image.facts.snapshots:
        return _SNAPSHOTS
    if image.facts.zstd:
        return "its compressed clusters are read by qemu only (zstd)"
    return ""
