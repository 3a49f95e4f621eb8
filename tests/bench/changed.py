"""What reading only what changed saves: python -m tests.bench changed.

One guest, both policies and the article's commands on the same disk in turn; then images without a guest, for sizes
that no test machine holds.
"""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.borg.client import Repository
from tests.bench import virtnbd
from tests.bench import world as worlds
from tests.bench.figures import Figure, absolute, conclude, ratio, unbound
from tests.bench.world import MIB, World, build, say
from tests.guests import Guest, ensure_daemons, image_dir
from tests.integration.segments.disk import BackedUpDisk
from tests.integration.segments.images import make_image, qemu_io
from tests.integration.segments.story import Story

MARKS = ("<!-- changed begins -->", "<!-- changed ends -->")
GIB = 1024 * MIB
DATA, DISK = 4 * GIB, "8G"
CLUSTERED, SCATTERED = 38 * MIB, 1200


def main(target: Path | None) -> int:
    """Measure, print, write; the exit code."""
    worlds.DATA, worlds.DISK = DATA, DISK
    daemons = ensure_daemons()
    try:
        with image_dir("bench") as root, worlds.usual_read_ahead(root):
            world, guest = build(root)
            try:
                figures = [*_with_a_guest(world, guest), *_without(root)]
            finally:
                guest.destroy()
                guest.undefine()
    finally:
        daemons.stop()
    return conclude(figures, target, MARKS, theirs="others")


def _with_a_guest(world: World, guest: Guest) -> list[Figure]:
    from tests.bench.__main__ import article_backup  # noqa: PLC0415 - it imports this

    whole = replace_policy(world, "whole")
    changed = replace_policy(world, "changed")
    article: list[float] = []
    virtnbd.require(say)
    others = virtnbd.incremental(world, lambda: _change(guest, "clustered"))
    for each in (whole, changed):
        each.vmborg("init")
    world.borg("init", "--encryption", "repokey", str(world.root / "theirs"))
    seconds: dict[str, list[float]] = {"whole": [], "changed": []}
    read, command = 0, 0.0
    steps = ("first", "clustered", "scattered")
    for step in steps:
        if step != "first":  # the other policy has taken its checkpoint away
            changed.backup()
        _change(guest, step)
        article.append(article_backup(world, step))
        for name, each in (("changed", changed), ("whole", whole)):
            done, result = each.backup()
            seconds[name].append(result["seconds"])
            if (name, step) == ("changed", "clustered"):
                read, command = result["disks"][0]["read"], done.seconds
    return [
        ratio("first backup, against `read: whole`", [(seconds["changed"][0], seconds["whole"][0])], bound=1.2),
        ratio("after 1 % of change, against the article", [(seconds["changed"][1], article[1])], bound=0.15),
        ratio("after 1 % of change, against virtnbdbackup's incremental", [(seconds["changed"][1], others)], bound=1.0),
        unbound(ratio("the whole command then, Prefect's start in it, against its", [(command, others)], bound=0)),
        absolute("read then, of what was written", read / CLUSTERED, bound=3.0, unit="x"),
        ratio("scattered change, against `read: whole`", [(seconds["changed"][2], seconds["whole"][2])], bound=1.2),
    ]


def replace_policy(world: World, read: str) -> World:
    """The same guest with a policy, a state and a repository of its own."""
    text = world.config.read_text("utf-8")
    path = world.root / f"{read}.yaml"
    path.write_text(
        text.replace("quiesce: require", f"quiesce: require, read: {read}")
        .replace("/state\n", f"/state-{read}\n")
        .replace("/ours,", f"/ours-{read},"),
        encoding="utf-8",
    )
    return replace(world, named=path.name)


def _change(guest: Guest, step: str) -> None:
    script = {
        "first": "true",
        "clustered": f"dd if=/dev/urandom of=/data/vda/noise bs=1M count={CLUSTERED // MIB} conv=notrunc && sync",
        "scattered": f"i=0; while [ $i -lt {SCATTERED} ]; do dd if=/dev/urandom of=/data/vda/pages bs=32k count=1 "
        f"seek=$((i * 37)) conv=notrunc 2>/dev/null; i=$((i + 1)); done; sync",
    }[step]
    code, output = guest.exec(["sh", "-c", script], 600)
    if code != 0:
        raise RuntimeError(f"the guest could not write: {output}")


def _without(root: Path) -> list[Figure]:
    """Images that nobody has open: what a disk costs of which nothing changed."""
    return [
        absolute("unchanged disk of 64 GiB, seconds of borg", _unchanged(root, 64 * GIB), bound=5.0, unit="s"),
        absolute("unchanged disk of 1 TiB, seconds in all", _unchanged(root, 1024 * GIB), bound=60.0, unit="s"),
    ]


def _unchanged(root: Path, size: int) -> float:
    with TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        disk = BackedUpDisk(make_image(folder / "a.qcow2", size=size), new_repository(folder), folder)
        qemu_io(disk.image, [f"write -P {number % 250 + 1} {number * (size // 64)} 1M" for number in range(64)])
        disk.back_up()
        begun = time.monotonic()
        _, _, created = disk.back_up()
        return created.seconds if size < 1024 * GIB else time.monotonic() - begun


def new_repository(folder: Path) -> Repository:
    """An empty one."""
    repository = Repository(
        name="bench",
        location=str(folder / "repository"),
        passphrase="only-for-the-bench",
        encryption="repokey",
        compression="lz4",
        base_dir=folder / "state",
        lock_wait=5,
    )
    repository.init()
    return repository


def story(backups: int, seed: int) -> int:
    """A disk's life drawn by lot, so many backups long: python -m tests.bench story BACKUPS SEED."""
    with TemporaryDirectory(prefix="vmborg-story-") as name:
        life = Story(Path(name), new_repository(Path(name)), seed=seed)
        life.play(backups, tell=print)
        print(f"seed {seed}: {backups} backups, {dict(life.modes)}, no mismatch")
    return 0
