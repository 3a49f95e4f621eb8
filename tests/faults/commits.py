"""Holding a run in the middle of its pivot step: a block commit that is as slow as the test wants it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.hypervisor.connection import Hypervisor
from tests.e2e.held import let_go, parent
from tests.faults.rig import MIB, Rig
from tests.faults.settings import settings
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
def slow_commit(rig: Rig, **policy: Any) -> Iterator[None]:
    """Runs that begin in the block commit slowly; see `load`. `policy` are more keys of theirs. `hurry` ends it."""
    with settings(rig.site, policy={"commit_bandwidth": "1MiB", **policy}):
        yield


def wait_commit(rig: Rig, target: str = "vda", *, timeout: float = 60, nearly_done: bool = False) -> None:
    """Wait until the disk's commit is under way and far from its end; or until it is near that."""

    def there() -> bool:
        with Hypervisor.open(rig.guest.uri) as hypervisor:
            job = hypervisor.by_uuid(rig.guest.uuid).block_job(target)
        return job is not None and job.cur > 0 and (job.end - job.cur < 24 * MIB) == nearly_done

    wait_for(there, timeout=timeout, what=f"the commit of {target}", interval=0.05)


def reach_commit(rig: Rig) -> int:
    """From the create step of a run that just began, in `slow_commit`, into its commit of 200 MiB; its process."""
    borg = rig.hold(timeout=240)
    run = parent(borg)
    load(rig, 200)
    let_go(borg)
    wait_commit(rig)
    return run


def set_speed(rig: Rig, target: str = "vda", *, mib_s: int) -> None:
    """How fast the commit may copy; 0: as fast as it can."""
    virsh(rig.guest.uri, "blockjob", rig.guest.uuid, target, "--bandwidth", str(mib_s))


def hurry(rig: Rig, target: str = "vda") -> None:
    """Let the commit run as fast as it can."""
    set_speed(rig, target, mib_s=0)
