"""Holding a run in the middle of its pivot step: a block commit that is as slow as the test wants it."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from infra.hypervisor.connection import Hypervisor, Link
from tests.e2e.held import let_go
from tests.faults.rig import MIB, Rig
from tests.guests import virsh, wait_for

LOAD = "/data/vda/load"


def load(rig: Rig, mebibytes: int) -> None:
    """Let the guest write so much to vda: what the commit then has to copy."""
    code, said = rig.guest.exec(["sh", "-c", f"dd if=/dev/zero of={LOAD} bs=1M count={mebibytes} && sync"], 120)
    assert code == 0, said


def unload(rig: Rig) -> None:
    """Remove it."""
    rig.guest.exec(["rm", "-f", LOAD])


@contextmanager
def slow_commit(rig: Rig, target: str = "vda", *, mib_s: int = 1) -> Iterator[None]:
    """In the block each commit of this disk is slowed down as soon as it is seen; see `load`. `hurry` ends that."""
    over = threading.Event()

    def slow_down() -> None:
        with closing(Link(rig.guest.uri)) as link:
            while not over.wait(0.005):
                if link.read_domain(rig.guest.uuid, what="Slowing", operation=slowed):
                    return

    def slowed(raw: Any) -> bool:
        if not raw.blockJobInfo(target):
            return False
        raw.blockJobSetSpeed(target, mib_s)  # not by virsh: when that has started, the commit may be over
        return True

    thread = threading.Thread(target=slow_down, name="slow-commit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def wait_commit(rig: Rig, target: str = "vda", *, timeout: float = 60, nearly_done: bool = False) -> None:
    """Wait until the disk's commit is under way, slowed down and far from its end; or until it is near that."""

    def there() -> bool:
        with Hypervisor.open(rig.guest.uri) as hypervisor:
            job = hypervisor.by_uuid(rig.guest.uuid).block_job(target)
        slow = job is not None and job.bandwidth > 0
        return job is not None and slow and job.cur > 0 and (job.end - job.cur < 24 * MIB) == nearly_done

    wait_for(there, timeout=timeout, what=f"the commit of {target}", interval=0.05)


def reach_commit(rig: Rig) -> None:
    """From the create step of a run that just began, which is to be in `slow_commit`, into its commit of 200 MiB."""
    borg = rig.hold(timeout=240)
    load(rig, 200)
    let_go(borg)
    wait_commit(rig)


def set_speed(rig: Rig, target: str = "vda", *, mib_s: int) -> None:
    """How fast the commit may copy; 0: as fast as it can."""
    virsh(rig.guest.uri, "blockjob", rig.guest.uuid, target, "--bandwidth", str(mib_s))


def hurry(rig: Rig, target: str = "vda") -> None:
    """Let the commit run as fast as it can."""
    set_speed(rig, target, mib_s=0)
