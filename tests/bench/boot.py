"""What a boot out of an archive costs: python -m tests.bench boot [DATA_MIB DISK_GIB].

Seconds from the command to the answer of the guest's agent, against `virsh start` of the same guest from its own disk,
in turn, each from a cold cache: once with much data, once on a disk that is large for what it holds, and once out of
segments.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import world as worlds
from tests.bench.changed import replace_policy
from tests.bench.figures import Figure, conclude, ratio
from tests.bench.world import MIB, NAME, URI, World, build, drop_caches, say
from tests.guests import Guest, ensure_daemons, image_dir, virsh

MARKS = ("<!-- boot begins -->", "<!-- boot ends -->")
GIB = 1024 * MIB
ROUNDS = 3
BOUND = 2.0
_AGENT_S = 300.0


def main(target: Path | None, *, data: int = 4 * GIB, disk_gib: int = 16) -> int:
    """Measure, print, write; the exit code. `data` in bytes."""
    daemons = ensure_daemons()
    try:
        with image_dir("bench") as root, worlds.usual_read_ahead(root):
            figures = [*_much(root / "much", data), *_large(root / "large", data // 16, disk_gib)]
    finally:
        daemons.stop()
    return conclude(figures, target, MARKS, theirs="its own disk")


def _much(root: Path, data: int) -> Iterator[Figure]:
    gib = -(-2 * data // GIB)
    with shut_off(root, data, gib) as (world, guest):
        whole = archived(world, "whole")
        segments = archived(world, "changed")
        name = f"{data / GIB:.3g} GiB of data on a disk of {gib} GiB"
        yield ratio(name, [_round(whole, guest, number) for number in range(ROUNDS)], bound=BOUND)
        yield ratio(f"{name}, in segments", [_round(segments, guest, number) for number in range(ROUNDS)], bound=BOUND)


def _large(root: Path, data: int, gib: int) -> Iterator[Figure]:
    with shut_off(root, data, gib) as (world, guest):
        whole = archived(world, "whole")
        name = f"{data / GIB:.3g} GiB of data on a disk of {gib} GiB"
        yield ratio(name, [_round(whole, guest, number) for number in range(ROUNDS)], bound=BOUND)


@contextmanager
def shut_off(root: Path, data: int, gib: int) -> Iterator[tuple[World, Guest]]:
    """A guest with so many bytes on so large a disk."""
    root.mkdir(mode=0o755)
    worlds.DATA, worlds.DISK = data, f"{gib}G"
    world, guest = build(root)
    try:
        with world.config.open("a", encoding="utf-8") as config:
            config.write(f"drills: {{scratch: {root}/scratch}}\n")
        guest.shutdown(timeout=120)
        yield world, guest
    finally:
        guest.destroy()
        guest.undefine()


def archived(world: World, read: str) -> World:
    """The same guest with a repository of this layout and one archive in it."""
    made = replace_policy(world, read)
    made.vmborg("init")
    say(f"a backup, read: {read}")
    made.backup()
    return made


def _round(world: World, guest: Guest, number: int) -> tuple[float, float]:
    """Seconds of ours and of the plain boot."""
    say(f"boots out of {world.named} ({number + 1} of {ROUNDS})")
    drop_caches()
    began = time.monotonic()
    guest.start().wait_agent(_AGENT_S)
    plain = time.monotonic() - began
    guest.destroy()
    drop_caches()
    began = time.monotonic()
    made = json.loads(world.vmborg("boot", NAME).stdout)
    Guest(URI, virsh(URI, "dumpxml", made["uuid"])).wait_agent(_AGENT_S)
    ours = time.monotonic() - began
    world.vmborg("boot", "--discard", made["name"])
    return ours, plain
