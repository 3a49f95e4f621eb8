"""Backups that a Prefect worker runs: from its schedule or a click, cancelled by a click, killed by the kernel."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.checks import sources
from tests.e2e.held import gone, hold_borg, parent
from tests.e2e.sources import MIB, Sources, disk
from tests.e2e.worker import Worker
from tests.guests import Guest, wait_for

pytestmark = pytest.mark.e2e

VM = "worked"
POOL = "vmborg-test-pool"
IMAGE = "worked.raw"
SIZE = 128 * MIB


@pytest.fixture(scope="module")
def worker(host: Sources, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of this host with both deployments."""
    with Worker(prefect_server, POOL, host.site.config, tmp_path_factory.mktemp("worker")).serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def guest(host: Sources) -> Guest:
    """A running VM."""
    image = host.folder / IMAGE
    image.write_bytes(os.urandom(SIZE))
    return host.define(VM, disk("vda", image, "raw")).start()


@pytest.fixture
def bases(guest: Guest) -> dict[str, str]:
    """Its images before the run."""
    return sources(guest)


def test_a_deployed_backup_completes(worker: Worker, host: Sources, guest: Guest, bases: dict[str, str]) -> None:
    """The worker, started in /, runs the flow from the checkout: Completed, one archive, named after the VM."""
    run_id = worker.start("backup-vm", vm=VM)
    run = worker.dashboard.wait_state(run_id, "COMPLETED", timeout=90)
    assert run["name"] == VM
    assert [f"Archive {each['archive']}" for each in host.archives(VM)] == [run["state"]["message"]]
    host.assert_on_bases(guest, bases)


def test_a_cancelled_backup_puts_the_vm_back(
    worker: Worker, host: Sources, guest: Guest, bases: dict[str, str]
) -> None:
    """Cancelled in the middle of create: within a minute Cancelled, borg gone, the VM on its bases, no archive left."""
    before = [each["archive"] for each in host.archives(VM)]
    run_id = worker.start("backup-vm", vm=VM)
    borg = hold_borg(host.site.repository_path, host.folder / IMAGE)
    assert sources(guest) != bases

    worker.prefect("flow-run", "cancel", run_id)

    worker.dashboard.wait_state(run_id, "CANCELLED", timeout=60)
    wait_for(lambda: _back(host, guest, bases), timeout=60, what="the VM on its bases", interval=0.3)
    host.assert_on_bases(guest, bases)
    assert gone(borg)
    assert [archive.name for archive in host.site.repository.archives()] == before


def test_a_killed_backup_is_put_back_by_the_hook(
    worker: Worker, host: Sources, guest: Guest, bases: dict[str, str]
) -> None:
    """SIGKILL of the flow's process in create: borg dies with it, the run is Crashed, its hook puts the VM back."""
    before = [each["archive"] for each in host.archives(VM)]
    run_id = worker.start("backup-vm", vm=VM)
    borg = hold_borg(host.site.repository_path, host.folder / IMAGE)
    assert sources(guest) != bases

    os.kill(parent(borg), signal.SIGKILL)

    worker.dashboard.wait_state(run_id, "CRASHED", timeout=60)
    wait_for(lambda: _back(host, guest, bases), timeout=60, what="the VM on its bases", interval=0.3)
    host.assert_on_bases(guest, bases)
    assert gone(borg)
    assert [each["archive"] for each in host.archives(VM)] == before


def _back(host: Sources, guest: Guest, bases: dict[str, str]) -> bool:
    return sources(guest) == bases and not host.site.journal.entries().entries
