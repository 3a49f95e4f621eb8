"""What a proof and a single file cost: python -m tests.bench drill [DATA_MIB].

A drill's restore against `borg extract --sparse` of the same archive, in turn, each from a cold cache; and one file of
10 MiB out of a disk with much data: what borg read of the repository for it, and how long it took.
"""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.bench import world as worlds
from tests.bench.boot import GIB, ROUNDS, archived, shut_off
from tests.bench.figures import Figure, absolute, conclude, speed, unbound
from tests.bench.world import NAME, SINGLE, World, drop_caches, extracted_by_hand, say
from tests.guests import ensure_daemons, image_dir

MARKS = ("<!-- drill begins -->", "<!-- drill ends -->")
_LOOK_S = 0.02


def main(target: Path | None, *, data: int = 4 * GIB) -> int:
    """Measure, print, write; the exit code. `data` in bytes."""
    daemons = ensure_daemons()
    try:
        with image_dir("bench") as root, worlds.usual_read_ahead(root):
            figures = list(_figures(root / "much", data))
    finally:
        daemons.stop()
    return conclude(figures, target, MARKS, theirs="borg extract")


def _figures(root: Path, data: int) -> Iterator[Figure]:
    with shut_off(root, data, -(-2 * data // GIB)) as (world, _):
        for read in ("whole", "changed"):
            made = archived(world, read)
            rounds = [_drill(made, f"ours-{read}", number) for number in range(ROUNDS)]
            yield speed(f"a drill's restore, read: {read}", rounds, bound=0.9)
            share, seconds = _single_file(made, data)
            yield absolute(f"one file of 10 MiB, read: {read}: share of the data read", share, bound=0.05, unit="x")
            yield unbound(absolute("the whole command", seconds, bound=0, unit="s"))


def _drill(world: World, repository: str, number: int) -> tuple[float, float]:
    """Seconds of the drill's restore and of `borg extract --sparse`."""
    say(f"a drill of {world.named} ({number + 1} of {ROUNDS})")
    archive = json.loads(world.vmborg("list", NAME).stdout)["archives"][-1]["archive"]
    theirs = extracted_by_hand(world, world.root / repository, archive)
    drop_caches()
    (proof,) = json.loads(world.vmborg("drill", NAME).stdout)["drills"]
    return proof["restore_s"], theirs


def _single_file(world: World, data: int) -> tuple[float, float]:
    """What borg's mount read for one file, as a share of the disk's data, and the seconds of the command."""
    say(f"one file out of {world.named}")
    target = world.root / "one"
    drop_caches()
    with _reading_of_borgs_mount() as read:
        done = world.vmborg("files", NAME, "get", f"/vda/{SINGLE}", "--to", str(target))
    if (target / SINGLE).stat().st_size != worlds.SINGLE_BYTES:
        raise RuntimeError("the file that came is not the one that was asked for")
    shutil.rmtree(target)
    return max(read.values()) / data, done.seconds


@contextmanager
def _reading_of_borgs_mount() -> Iterator[dict[int, int]]:
    """The bytes that each `borg mount` read, in calls of read(2), while a block runs."""
    over, seen = threading.Event(), dict[int, int]()

    def look() -> None:
        while not over.wait(_LOOK_S):
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if "mount" in words and any(Path(word).name == "borg" for word in words):
                    try:
                        seen[process.pid] = process.io_counters().read_chars
                    except psutil.NoSuchProcess:
                        continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
