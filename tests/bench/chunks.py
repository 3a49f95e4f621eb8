"""What each size of borg's blocks stores and takes: python -m tests.bench chunks [--write FILE].

An image of the same content for each size, without a guest, and the same writes to each: what `chunk_size` of
`read: changed` is chosen by. Nothing is promised here, so nothing is bound.
"""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from infra.process import run
from tests.bench.changed import new_repository
from tests.bench.figures import tell
from tests.bench.world import MIB, drop_caches, say
from tests.integration.segments.disk import BackedUpDisk
from tests.integration.segments.images import qemu_io

MARKS = ("<!-- chunks begins -->", "<!-- chunks ends -->")
SIZES = {"256 KiB": MIB // 4, "1 MiB": MIB, "4 MiB": 4 * MIB}
STEPS = ("first", "clustered", "scattered")
DATA, DISK = 1024 * MIB, 2048 * MIB
CLUSTERED = DATA // 100
SCATTERED, PAGE = 320, 32 * 1024
ROUNDS = 3


@dataclass(slots=True)
class Measured:
    """One size: for each step what borg stored (bytes), and its seconds in each round."""

    stored: dict[str, int] = field(default_factory=dict[str, int])
    seconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})


def main(target: Path | None) -> int:
    """Measure, print, write; the exit code."""
    found = {name: Measured() for name in SIZES}
    with TemporaryDirectory(prefix="vmborg-chunks-", dir="/var/tmp") as folder:
        pattern = _pattern(Path(folder))
        for number in range(ROUNDS):
            for name, size in SIZES.items():  # in turn, so that a slow minute hits all of them
                say(f"blocks of {name} ({number + 1} of {ROUNDS})")
                with TemporaryDirectory(dir=folder) as place:
                    _measure(Path(place), pattern, size, found[name])
    text = _table(found)
    tell(text, target, MARKS)
    return 0


def _pattern(folder: Path) -> Path:
    """The disk before its first backup: half of it data, of which half is noise and half compresses to a half."""
    chance = random.Random(7)
    raw, image = folder / "raw", folder / "pattern.qcow2"
    with raw.open("wb") as file:
        for number in range(DATA // MIB):
            half = (chance.randbytes(2048) + bytes(2048) for _ in range(MIB // 4096))
            file.write(chance.randbytes(MIB) if number % 2 else b"".join(half))
        file.truncate(DISK)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)], timeout=600)
    raw.unlink()
    return image


def _measure(folder: Path, pattern: Path, block: int, found: Measured) -> None:
    image = folder / "vda.qcow2"
    shutil.copyfile(pattern, image)
    disk = BackedUpDisk(image, new_repository(folder), folder, block=block)
    for step in STEPS:
        _change(disk, step)
        drop_caches()
        _, reading, created = disk.back_up()
        if reading.full != (step == "first"):
            raise RuntimeError(f"{step}: {reading.reason}")
        found.stored[step] = created.deduplicated_size
        found.seconds[step].append(created.seconds)


def _change(disk: BackedUpDisk, step: str) -> None:
    """One place, or many that are drawn by lot; the same for every size."""
    chance = random.Random(step)
    noise = disk.work / "noise"
    if step == "clustered":
        noise.write_bytes(chance.randbytes(CLUSTERED))
        qemu_io(disk.image, [f"write -s {noise} {DATA // 3 // PAGE * PAGE} {CLUSTERED}"])
    elif step == "scattered":
        for _ in range(SCATTERED // 64):
            noise.write_bytes(chance.randbytes(PAGE))
            places = [chance.randrange(DATA // PAGE) * PAGE for _ in range(64)]
            qemu_io(disk.image, [f"write -s {noise} {place} {PAGE}" for place in places])


def _table(found: dict[str, Measured]) -> str:
    heads = " | ".join(f"{step}: stored | seconds" for step in STEPS)
    lines = [f"| blocks of | {heads} |", "|---|" + "---:|" * (2 * len(STEPS))]
    for name, each in found.items():
        lines.append(f"| {name} | {' | '.join(_cells(each, STEPS))} |")
    return "\n".join(lines)


def _cells(each: Measured, steps: Sequence[str]) -> list[str]:
    return [f"{each.stored[step] / 1e6:.1f} MB | {median(each.seconds[step]):.2f} s" for step in steps]
