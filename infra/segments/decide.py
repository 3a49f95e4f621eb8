"""Which segments of a disk have to be read, and why. Any doubt means all of them.

What can go wrong silently is one thing alone: content that changed without a dirty bit. So the bitmap counts only if
everything else fits: the state, the file, its size, and where its tables say that the content is.
"""

import os
import random
import zlib
from array import array
from dataclasses import dataclass, replace
from itertools import islice

from infra.errors import ImageError
from infra.qcow2.bitmaps import dirty_bytes, dirty_segments
from infra.qcow2.image import Qcow2Image
from infra.segments.state import UNKNOWN, DiskState, Still, new_generation

SAMPLE_BYTES = 32 * 1024**2
"""Bytes of segments that are held to be clean and are read and compared all the same, in each backup."""

_DRAWN = 32  # times as many are looked at: most of a sparse disk is holes
_SMALL, _LARGE = 4 * 1024**2, 16 * 1024**2
_LARGE_FROM = 256 * 1024**3


def segment_size(size: int) -> int:
    """Bytes of a segment of a disk of this size: a file for borg each, so not too many."""
    return _SMALL if size <= _LARGE_FROM else _LARGE


@dataclass(frozen=True, slots=True)
class DiskReading:
    """How one disk is read in this backup. Bytes."""

    target: str
    path: str
    inode: int
    stamp: tuple[int, ...]
    size: int
    segment: int
    reason: str  # in words for people
    full: bool
    generation: int  # of what is read now
    generations: "array[int]"
    tables: "array[int]"
    base: DiskState | None  # what the bitmap counts from; None when nothing is known
    known: "array[int]"  # checksums of the segments that are held to be clean, UNKNOWN of all others
    changed: int = 0  # segments
    dirty: int = 0  # bytes that the bitmap's bits stand for
    stale: tuple[int, ...] = ()  # segments that were held to be clean and are not

    @property
    def read_bytes(self) -> int:
        """What borg has to read."""
        return self.size if self.full else min(self.size, self.changed * self.segment)


class _Doubt(Exception):
    """Why the bitmap does not count."""


def decide(
    image: Qcow2Image, previous: DiskState | None, *, target: str, full_read_every: int, lost: str = ""
) -> DiskReading:
    """How to read this frozen disk. `lost` says why there is no state where there should be one.

    Raises ImageError, DiskMissing, OSError when the image cannot be read at all.
    """
    found = os.stat(image.path)  # noqa: PTH116 - all of its numbers are wanted
    segment = segment_size(image.size)
    reading = DiskReading(
        target=target,
        path=os.path.realpath(image.path),
        inode=found.st_ino,
        stamp=(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
        size=image.size,
        segment=segment,
        reason="",
        full=True,
        generation=0,
        generations=array("Q"),
        tables=image.fingerprints(segment),
        base=None,
        known=array("Q"),
    )
    try:
        base, dirty, bits = _known(image, previous, reading, lost)
    except _Doubt as doubt:
        return _in_full(replace(reading, reason=str(doubt)), previous)
    clean = set(range(len(reading.tables))) - dirty
    known = array("Q", (base.seen[each] if each in clean else UNKNOWN for each in range(len(base.seen))))
    reading = replace(reading, base=previous, known=known, changed=len(dirty), dirty=bits)
    if base.since_full + 1 >= full_read_every:
        due = f"a full read is due: every {full_read_every} backups"
        return _in_full(replace(reading, reason=due), previous)
    generation = new_generation(base.generations)
    generations = array("Q", base.generations)
    for each in dirty:
        generations[each] = generation
    why = f"{len(dirty)} of {len(generations)} segments changed since the last backup"
    return replace(reading, reason=why, full=False, generation=generation, generations=generations)


def _in_full(reading: DiskReading, previous: DiskState | None) -> DiskReading:
    generation = new_generation(previous.generations if previous else ())
    count = len(reading.tables)
    known = reading.known or array("Q", [UNKNOWN]) * count
    return replace(
        reading,
        full=True,
        generation=generation,
        generations=array("Q", [generation]) * count,
        known=known,
        changed=count,
    )


def _known(
    image: Qcow2Image, previous: DiskState | None, now: DiskReading, lost: str
) -> tuple[DiskState, set[int], int]:
    """What is known of the content, the segments that changed since, and the bytes of their bits. Raises _Doubt."""
    if previous is None:
        raise _Doubt(f"the state of the last backup is lost: {lost}" if lost else "first backup in this way")
    if previous.size != now.size:
        raise _Doubt(f"the size changed from {previous.size} to {now.size} bytes")
    if previous.segment != now.segment or len(previous.generations) != len(now.tables):
        raise _Doubt("segments were of another size")
    if (previous.path, previous.inode) != (now.path, now.inode):
        raise _Doubt("it is another file than at the last backup")
    if previous.still is not None and previous.still.stamp == now.stamp:
        still = previous.still
        return replace(previous, generations=still.generations, seen=still.seen), set(), 0
    dirty, bits = _dirty(image, previous, now)
    moved = [each for each in range(len(now.tables)) if each not in dirty and previous.tables[each] != now.tables[each]]
    if moved:
        raise _Doubt(f"the allocation of {len(moved)} segments changed without a dirty bit")
    return previous, dirty, bits


def _dirty(image: Qcow2Image, previous: DiskState, now: DiskReading) -> tuple[set[int], int]:
    if not previous.checkpoint:
        raise _Doubt("no checkpoint was made at the last backup")
    try:
        entry = image.bitmap(previous.checkpoint)
        if entry is None:
            raise _Doubt(f"the dirty bitmap of checkpoint {previous.checkpoint} is gone")
        if entry.in_use:
            raise _Doubt("the dirty bitmap is in use: qemu ended without storing it")
        bits = image.bits(entry)
    except ImageError as error:
        raise _Doubt(f"the dirty bitmap cannot be read: {error.evidence}") from error
    found = dirty_segments(bits, granularity=entry.granularity, size=now.size, segment=now.segment)
    return found, dirty_bytes(bits, entry.granularity)


def sample(image: Qcow2Image, reading: DiskReading, *, chance: random.Random) -> DiskReading:
    """Read some segments that are held to be clean; one that is not makes it a full read.

    Of holes the tables tell enough. Raises OSError.
    """
    if reading.full:
        return reading
    candidates = [number for number, seen in enumerate(reading.known) if seen != UNKNOWN]
    wanted = max(1, SAMPLE_BYTES // reading.segment)
    drawn = chance.sample(candidates, min(len(candidates), _DRAWN * wanted))
    data = (number for number in drawn if not image.is_hole(number * reading.segment, _length(reading, number)))
    chosen = list(islice(data, wanted))
    stale = tuple(number for number in chosen if _checksum(image, reading, number) != reading.known[number])
    if not stale:
        return reading
    why = f"{len(stale)} of {len(chosen)} sampled segments changed without a dirty bit"
    return replace(_in_full(replace(reading, reason=why, base=None), reading.base), stale=stale)


def _checksum(image: Qcow2Image, reading: DiskReading, number: int) -> int:
    return zlib.crc32(image.read(number * reading.segment, _length(reading, number)))


def _length(reading: DiskReading, number: int) -> int:
    return min(reading.segment, reading.size - number * reading.segment)


def found_stale(reading: DiskReading, seen: "array[int]") -> tuple[int, ...]:
    """The segments that were held to be clean and turned out not to be when they were read all the same. Pure."""
    return tuple(
        number
        for number, (expected, found) in enumerate(zip(reading.known, seen, strict=True))
        if UNKNOWN not in (expected, found) and expected != found
    )


def following_state(
    reading: DiskReading, seen: "array[int]", *, checkpoint: str, shut_off: bool, stale: bool
) -> DiskState:
    """What to remember after this backup. Pure.

    `seen` are checksums of what was read. `checkpoint` is the one made at its instant, "" if there is none: then the
    former one still counts, from the generations of its own instant. `stale`: what the bitmap said was not true; it is
    not believed again.
    """
    kept = _checksums(reading, seen)
    since = 0 if reading.full else (reading.base.since_full if reading.base else 0) + 1
    still = Still(reading.stamp, reading.generations, kept) if shut_off else None
    if not checkpoint and reading.base is not None and not stale:
        return replace(reading.base, since_full=since, still=still)
    return DiskState(
        path=reading.path,
        inode=reading.inode,
        checkpoint=checkpoint,
        size=reading.size,
        segment=reading.segment,
        generations=reading.generations,
        tables=reading.tables,
        seen=kept,
        since_full=since,
        still=still,
    )


def _checksums(reading: DiskReading, seen: "array[int]") -> "array[int]":
    """What is known of each segment's content now; of one that was dirty and not read, nothing."""
    return array(
        "Q",
        (new if new != UNKNOWN or reading.full else old for new, old in zip(seen, reading.known, strict=True)),
    )
