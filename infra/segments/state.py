"""What is remembered of a VM's disks from one backup to the next: one file a VM, replaced as a whole.

It says: at the checkpoint of this name the content of each segment was that of its generation. A generation names a
content: it is given once, and nothing else ever has it. What borg's files cache holds of it is therefore true, or never
used, whatever became of the run that put it there.
"""

import base64
import hashlib
import json
import secrets
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

UNKNOWN = 1 << 32
"""Stands for the checksum of a segment that was never read."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Still:
    """A backup of a shut-off VM: as long as the image's file is the same, so is its content."""

    stamp: tuple[int, ...]
    generations: "array[int]"
    seen: "array[int]"


@dataclass(frozen=True, slots=True)
class DiskState:
    """One disk. Bytes."""

    path: str
    inode: int
    checkpoint: str  # from which on its dirty bitmap counts; "" when there is none
    size: int
    segment: int
    generations: "array[int]"  # a number a segment
    tables: "array[int]"  # a checksum a segment: where its content is in the image
    seen: "array[int]"  # a CRC-32 a segment: its content, UNKNOWN if it was not read
    since_full: int = 0  # backups since it was read in full
    still: Still | None = None


@dataclass(frozen=True, slots=True)
class VmState:
    """One VM. `archives` are those since the last full read, that one included."""

    disks: Mapping[str, DiskState] = field(default_factory=dict[str, DiskState])
    archives: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> frozenset[str]:
        """Those that are needed still."""
        return frozenset(disk.checkpoint for disk in self.disks.values() if disk.checkpoint)


def new_generation(used: "array[int] | tuple[int, ...]" = ()) -> int:
    """A number that was never given.

    It is half the time in nanoseconds and a part that is drawn by lot. borg does not keep the files of the newest ctime
    in its cache; half a time is never the newest, because the manifest has a whole one.
    """
    while True:
        generation = time.time_ns() // 2 + secrets.randbits(40)
        if generation not in used:
            return generation


def render_state(state: VmState) -> str:
    """As text; its last line is a checksum of the rest."""
    document = {
        "version": _VERSION,
        "archives": list(state.archives),
        "disks": {target: _render_disk(disk) for target, disk in state.disks.items()},
    }
    text = json.dumps(document) + "\n"
    return f"{text}{_digest(text)}\n"


def parse_state(text: str) -> VmState:
    """Read it back. Raises ValueError: it is damaged, or of another version."""
    body, _, digest = text.removesuffix("\n").rpartition("\n")
    body += "\n"
    if _digest(body) != digest:
        raise ValueError("its checksum is wrong")
    document = cast("dict[str, Any]", json.loads(body))
    if document.get("version") != _VERSION:
        raise ValueError(f"it is of version {document.get('version')}")
    disks = {target: _parse_disk(disk) for target, disk in cast("dict[str, Any]", document["disks"]).items()}
    return VmState(disks, tuple(document["archives"]))


def read_state(path: Path) -> VmState | None:
    """What is remembered; None when nothing is. Raises ValueError when it cannot be read."""
    try:
        return parse_state(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _render_disk(disk: DiskState) -> dict[str, Any]:
    still = disk.still
    return {
        "path": disk.path,
        "inode": disk.inode,
        "checkpoint": disk.checkpoint,
        "size": disk.size,
        "segment": disk.segment,
        "since_full": disk.since_full,
        "generations": _pack(disk.generations),
        "tables": _pack(disk.tables),
        "seen": _pack(disk.seen),
        "still": still
        and {"stamp": list(still.stamp), "generations": _pack(still.generations), "seen": _pack(still.seen)},
    }


def _parse_disk(found: dict[str, Any]) -> DiskState:
    still = found["still"]
    disk = DiskState(
        path=found["path"],
        inode=found["inode"],
        checkpoint=found["checkpoint"],
        size=found["size"],
        segment=found["segment"],
        since_full=found["since_full"],
        generations=_unpack("Q", found["generations"]),
        tables=_unpack("I", found["tables"]),
        seen=_unpack("Q", found["seen"]),
        still=still and Still(tuple(still["stamp"]), _unpack("Q", still["generations"]), _unpack("Q", still["seen"])),
    )
    if {len(disk.generations), len(disk.tables), len(disk.seen)} != {-(-disk.size // disk.segment)}:
        raise ValueError("it does not speak of every segment")
    return disk


def _pack(numbers: "array[int]") -> str:
    return base64.b85encode(numbers.tobytes()).decode("ascii")


def _unpack(code: str, text: str) -> "array[int]":
    numbers = array("Q") if code == "Q" else array("I")
    numbers.frombytes(base64.b85decode(text))
    return numbers
