"""virtnbdbackup, another program that reads only dirty blocks: what its incremental backup takes of the bench's guest.

It refuses a VM that has a checkpoint it did not make, so it goes first, and its checkpoints are removed before ours
come. Its package is no part of the setup: it brings a second Python world along (boto3, paramiko and others).
"""

import shutil
from collections.abc import Callable

from infra.process import run
from tests.bench.world import NAME, URI, World, drop_caches, timed
from tests.guests import virsh

PACKAGE = "virtnbdbackup"


def require(say: Callable[[str], None]) -> None:
    """Install it unless it is there, and say what comes with it. Raises CommandFailed."""
    if shutil.which(PACKAGE):
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", PACKAGE]
    planned = run(["apt-get", "-s", *install[1:]], timeout=120).stdout
    names = [line.split()[1] for line in planned.splitlines() if line.startswith("Inst ")]
    say(f"installing {len(names)} packages for the comparison: {' '.join(names)}")
    run(install, timeout=600, env={"DEBIAN_FRONTEND": "noninteractive"})


def incremental(world: World, change: Callable[[], None]) -> float:
    """Wall seconds of `-l inc -z`, after a full backup and a change. Its checkpoints are gone afterwards.

    Raises CalledProcessError when it fails.
    """
    target = world.root / "virtnbdbackup"
    try:
        _run(world, "full", str(target))
        change()
        drop_caches()
        return _run(world, "inc", str(target))
    finally:
        for name in virsh(URI, "checkpoint-list", NAME, "--name", "--topological").split()[::-1]:
            if name.startswith(f"{PACKAGE}."):
                virsh(URI, "checkpoint-delete", NAME, name)
        shutil.rmtree(target, ignore_errors=True)


def _run(world: World, level: str, target: str) -> float:
    argv = [PACKAGE, "-U", URI, "-d", NAME, "-l", level, "-z", "-n", "-o", target]
    return timed([*argv, "-S", str(world.root), "-f", f"/var/tmp/{PACKAGE}.{NAME}"]).seconds
