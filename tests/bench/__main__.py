"""Run the bench: python -m tests.bench [--write FILE]. Exit code 1 when a bound is missed.

The article's way is run with its own commands on the same disk of the same guest, in the same run, in turn with ours.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.figures import Figure, absolute, ratio, speed, table
from tests.bench.world import BIN, MIB, NAME, URI, World, build, drop_caches
from tests.e2e.prefect_server import running_server
from tests.guests import Guest, ensure_daemons, image_dir, virsh, wait_for

MARKS = ("<!-- bench begins -->", "<!-- bench ends -->")
CHANGE = 38 * MIB  # about 1 % of the data, clustered


def main(arguments: list[str]) -> int:
    """Measure, print, write; return the exit code."""
    target = Path(arguments[1]) if arguments[:1] == ["--write"] and len(arguments) == 2 else None
    if arguments and target is None:
        print("usage: python -m tests.bench [--write FILE]")
        return 2
    daemons = ensure_daemons()
    try:
        with image_dir("bench") as root:
            world, guest = build(root)
            try:
                figures = measure(world, guest)
            finally:
                guest.destroy()
                guest.undefine()
    finally:
        daemons.stop()
    text = table(figures)
    print(text)
    if target:
        _write(target, text)
    return 0 if all(figure.kept for figure in figures) else 1


def measure(world: World, guest: Guest) -> list[Figure]:
    """All rows, in the order of a VM's life."""
    say("first backups")
    theirs_first = article_backup(world, "first")
    first, first_result = world.backup()
    say("second backups, after 1 % of change")
    change(guest)
    theirs_second = article_backup(world, "second")
    second, second_result = world.backup()
    say("a backup with a Prefect server running")
    home = world.root / "prefect"
    home.mkdir()
    with running_server(home) as api:
        served, served_result = world.backup({"PREFECT_API_URL": api})
    say("shut off, unchanged")
    guest.shutdown(timeout=120)
    borg_create(world, "off-1")
    world.backup()
    theirs_off = borg_create(world, "off-2")
    _, off_result = world.backup()
    say("restores")
    theirs_restore, ours_restore = restores(world, second_result["archive"])
    frozen = max(result["frozen_ms"] for result in (first_result, second_result, served_result))
    peak = max(run.peak_mb for run in (first, second, served))
    return [
        ratio("create, first backup", first_result["seconds"], theirs_first, bound=0.7),
        ratio("create, second backup after 1 % change", second_result["seconds"], theirs_second, bound=0.5),
        ratio("create, unchanged and shut off", off_result["seconds"], theirs_off, bound=0.15),
        absolute("frozen, longest", frozen / 1000, bound=1.0, unit="s"),
        absolute(
            "all but borg, with a Prefect server", served.seconds - served_result["borg_seconds"], bound=5.0, unit="s"
        ),
        absolute(
            "all but borg, embedded Prefect", second.seconds - second_result["borg_seconds"], bound=10.0, unit="s"
        ),
        absolute("peak memory of vmborg's process", peak, bound=250.0, unit="MB"),
        speed("restore, speed against borg extract --sparse", ours_restore, theirs_restore, bound=0.9),
    ]


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
    """Seconds of `borg extract --sparse` and of our restore of the same archive, each from a cold cache."""
    theirs, ours = world.root / "by-hand", world.root / "by-vmborg"
    theirs.mkdir()
    env = {"BORG_PASSPHRASE": "only-for-the-bench", "BORG_BASE_DIR": str(world.root / "borg-home")}
    drop_caches()
    begun = time.monotonic()
    subprocess.run(
        [str(BIN / "borg"), "extract", "--sparse", f"{world.root}/ours::{archive}"],
        check=True,
        cwd=theirs,
        env={**os.environ, **env},
    )
    by_hand = time.monotonic() - begun
    shutil.rmtree(theirs)
    drop_caches()
    done = world.vmborg("restore", NAME, "--archive", archive, "--files-only", "--to", str(ours))
    shutil.rmtree(ours)
    return by_hand, done.seconds


def _write(path: Path, text: str) -> None:
    before, rest = path.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def say(text: str) -> None:
    """Where we are."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
