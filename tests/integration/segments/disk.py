"""A disk that is backed up without libvirt: an image that nobody has open, qemu's own bitmaps, borg, a memory."""

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from infra.borg.client import CreateResult, Repository
from infra.borg.segments import SegmentSource
from infra.qcow2.image import Qcow2Image
from infra.segments.decide import DiskReading, decide, following_state, found_stale, sample
from infra.segments.state import DiskState, VmState, parse_state, render_state
from infra.segments.view import segment_view
from tests.integration.segments.images import add_bitmap, drop_bitmaps

BLOCK = 1024**2


@dataclass(slots=True)
class BackedUpDisk:
    """What `tasks/reading.py` does of one disk, one `back_up` after the other."""

    image: Path
    repository: Repository
    work: Path
    full_read_every: int = 1000
    block: int = BLOCK
    state: DiskState | None = None
    made: int = 0
    stale: list[int] = field(default_factory=list[int])
    read: int = 0  # bytes of segments that the last backup read

    def back_up(
        self,
        *,
        checkpoint: bool = True,
        shut_off: bool = False,
        remember: bool = True,
        edit: Callable[[DiskReading], DiskReading] = lambda reading: reading,
    ) -> tuple[str, DiskReading, CreateResult]:
        """Make an archive. Without `remember` the run dies after it; `edit` takes a safeguard away."""
        self.made += 1
        name = f"a{self.made}"
        mark = f"vmborg-{secrets.token_hex(4)}" if checkpoint else ""
        if mark:
            add_bitmap(self.image, mark)
        with Qcow2Image(str(self.image)) as image:
            reading = decide(image, self.state, target="vda", full_read_every=self.full_read_every)
            reading = edit(sample(image, reading, chance=random.Random(self.made)))
        mount = self.work / "disks"
        (self.work / "sentinel").write_text(name)  # what the manifest is: the newest file
        with segment_view(mount, [reading]) as view:
            source = SegmentSource(f"{self.work}/./disks", view.prefix, self.block, alone=True)
            created = self.repository.create(
                name, [f"{self.work}/./sentinel"], comment="", files_cache_suffix="x", segments=source
            )
            served = view.finish()
        self.read, seen = served.read, served.seen["vda"]
        self.stale += sorted({*reading.stale, *found_stale(reading, seen)})
        if remember:
            stale = bool(self.stale)
            state = following_state(reading, seen, checkpoint=mark, shut_off=shut_off, stale=stale)
            self.state = parse_state(render_state(VmState({"vda": state}))).disks["vda"]
            drop_bitmaps(self.image, keep=self.state.checkpoint)
        return name, reading, created

    def archived(self, name: str) -> bytes:
        """The disk as plain borg gives it back."""
        with (self.work / "out").open("wb") as file:
            self.repository.extract_to(name, "disks/vda", file)
        return (self.work / "out").read_bytes()
