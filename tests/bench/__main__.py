"""Run the bench: python -m tests.bench [PART] [--write FILE]. Exit code 1 when a bound is missed.

PART is dumps, retention, changed, chunks, boot, drill or scale; `story N SEED` is no measurement, but a test of so many
backups, `scale HOSTS VMS SECONDS` a smaller or larger night, `boot DATA_MIB DISK_GIB` and `drill DATA_MIB` measure
smaller disks.

The article's way is run with its own commands on the same disk of the same guest, in the same run, in turn with ours.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import boot, changed, chunks, drill, dumps, retention
from tests.bench.figures import Figure, absolute, conclude, ratio, speed
from tests.bench.scale import measure as scale
from tests.bench.world import MIB, NAME, URI, Timed, World, build, drop_caches, extracted_by_hand, say, usual_read_ahead
from tests.e2e.prefect_server import running_server
from tests.guests import Guest, ensure_daemons, image_dir, virsh, wait_for

MARKS = ("<!-- bench begins -->", "<!-- bench ends -->")
CHANGE = 38 * MIB  # about 1 % of the data, clustered
ROUNDS = 3


USAGE = """usage: python -m tests.bench [dumps|changed|chunks|boot|drill|scale] [--write FILE]
       python -m tests.bench retention
       python -m tests.bench story BACKUPS SEED
       python -m tests.bench scale HOSTS VMS SECONDS
       python -m tests.bench boot DATA_MIB DISK_GIB
       python -m tests.bench drill DATA_MIB"""


def main(arguments: list[str]) -> int:
    """Measure, print, write; return the exit code."""
    match arguments:
        case ["story", backups, seed]:
            code = changed.story(int(backups), int(seed))
        case ["scale", hosts, vms, seconds]:
            code = scale.main(None, scale.Plan(int(hosts), int(vms), float(seconds)))
        case ["boot", data, disk] if data.isdecimal() and disk.isdecimal():
            code = boot.main(None, data=int(data) * MIB, disk_gib=int(disk))
        case ["drill", data] if data.isdecimal():
            code = drill.main(None, data=int(data) * MIB)
        case ["retention"]:
            code = retention.main()
        case [("dumps" | "changed" | "chunks" | "boot" | "drill" | "scale") as part, *rest] if not rest or (
            rest[0] == "--write" and len(rest) == 2
        ):
            parts = {"dumps": dumps, "changed": changed, "chunks": chunks, "boot": boot, "drill": drill, "scale": scale}
            code = parts[part].main(Path(rest[1]) if rest else None)
        case [] | ["--write", _]:
            code = against_the_article(Path(arguments[1]) if arguments else None)
        case _:
            print(USAGE)
            code = 2
    return code


def against_the_article(target: Path | None) -> int:
    """Ours and the article's commands on the same disk, in turn."""
    daemons = ensure_daemons()
    try:
        with image_dir("bench") as root, usual_read_ahead(root):
            world, guest = build(root)
            try:
                figures = measure(world, guest)
            finally:
                guest.destroy()
                guest.undefine()
    finally:
        daemons.stop()
    return conclude(figures, target, MARKS)


def measure(world: World, guest: Guest) -> list[Figure]:
    """All rows, in the order of a VM's life. What is compared is done ROUNDS times, theirs and ours in turn."""
    runs: list[Run] = []
    first = [first_backups(world, number, runs) for number in rounds("first backups, into new repositories")]
    second = [second_backups(world, guest, number, runs) for number in rounds("second backups, after 1 % of change")]
    say("a backup with a Prefect server running")
    home = world.root / "prefect"
    home.mkdir()
    with running_server(home) as api:
        served = [backup(world, {"PREFECT_API_URL": api}) for _ in range(ROUNDS)]
    guest.shutdown(timeout=120)
    borg_create(world, "off")
    backup(world)
    off = [unchanged_backups(world, number) for number in rounds("shut off, unchanged")]
    archive = runs[-1].result["archive"]
    restored = [restores(world, archive) for _ in rounds("restores")]
    everything = [*runs, *served]
    peak = max(run.timed.peak_mb for run in everything)
    return [
        ratio("create, first backup", first, bound=0.7),
        ratio("create, second backup after 1 % change", second, bound=0.5),
        ratio("create, unchanged and shut off", off, bound=0.15),
        absolute("frozen, longest", max(run.result["frozen_ms"] for run in everything) / 1000, bound=1.0, unit="s"),
        absolute("all but borg, with a Prefect server", median(map(beside_borg, served)), bound=5.0, unit="s"),
        absolute("all but borg, embedded Prefect", median(map(beside_borg, runs)), bound=10.0, unit="s"),
        absolute("peak memory of vmborg's process", peak, bound=250.0, unit="MB"),
        speed("restore, speed against borg extract --sparse", restored, bound=0.9),
    ]


@dataclass(frozen=True, slots=True)
class Run:
    """One `vmborg backup`: its time as a command, and what it said."""

    timed: Timed
    result: dict[str, Any]


def rounds(text: str) -> Iterator[int]:
    """Count ROUNDS, and say where we are."""
    for number in range(ROUNDS):
        say(f"{text} ({number + 1} of {ROUNDS})")
        yield number


def backup(world: World, env: dict[str, str] | None = None) -> Run:
    """One of ours."""
    return Run(*world.backup(env))


def beside_borg(run: Run) -> float:
    """Seconds of the whole command that were not spent in borg."""
    return float(run.timed.seconds - run.result["borg_seconds"])


def first_backups(world: World, number: int, runs: list[Run]) -> tuple[float, float]:
    """Seconds of create, ours and theirs."""
    world.new_repositories()
    theirs = article_backup(world, f"first-{number}")
    runs.append(backup(world))
    return runs[-1].result["seconds"], theirs


def second_backups(world: World, guest: Guest, number: int, runs: list[Run]) -> tuple[float, float]:
    """The same, after a change."""
    change(guest)
    theirs = article_backup(world, f"second-{number}")
    runs.append(backup(world))
    return runs[-1].result["seconds"], theirs


def unchanged_backups(world: World, number: int) -> tuple[float, float]:
    """The same, of a shut-off VM that both have seen before."""
    theirs = borg_create(world, f"unchanged-{number}")
    return backup(world).result["seconds"], theirs


def article_backup(world: World, name: str) -> float:
    """The article's way, its commands as they stand; return the seconds of its `borg create`."""
    overlay = world.root / "vda.backup.qcow2"
    virsh(
        URI,
        *("snapshot-create-as", "--domain", NAME, "--name", "backup.qcow2", "--no-metadata", "--atomic", "--quiesce"),
        *("--disk-only", "--diskspec", "vda,snapshot=external"),
    )
    try:
        return borg_create(world, name)
    finally:
        virsh(URI, "blockcommit", NAME, "vda", "--active", "--pivot")
        wait_for(lambda: world.image.name in virsh(URI, "domblklist", NAME), timeout=60, what="the pivot")
        overlay.unlink()


def borg_create(world: World, name: str) -> float:
    """`borg create` as in the article."""
    drop_caches()
    return world.borg("create", "-v", "--stats", f"{world.root}/theirs::{name}", str(world.image)).seconds


def change(guest: Guest) -> None:
    """Write 1 % of the data anew, clustered, from inside the guest."""
    code, output = guest.exec(
        ["sh", "-c", f"dd if=/dev/urandom of=/data/vda/noise bs=1M count={CHANGE // MIB} conv=notrunc && sync"], 300
    )
    if code != 0:
        raise RuntimeError(f"the guest could not write: {output}")


def restores(world: World, archive: str) -> tuple[float, float]:
    """Seconds of our restore and of `borg extract --sparse` of the same archive, each from a cold cache.

    Ours ends when everything is on the disk, so theirs is given a sync.
    """
    by_hand = extracted_by_hand(world, world.root / "ours", archive)
    ours = world.root / "by-vmborg"
    drop_caches()
    done = world.vmborg("restore", NAME, "--archive", archive, "--files-only", "--to", str(ours))
    shutil.rmtree(ours)
    return done.seconds, by_hand


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
