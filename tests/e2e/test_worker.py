"""Backups that a Prefect worker runs, from its schedule or a click. Those that end badly are faults: tests/faults."""

import os
from collections.abc import Iterator

import pytest

from tests.e2e.checks import sources
from tests.e2e.sources import MIB, Sources, disk
from tests.e2e.worker import Worker
from tests.guests import Guest

pytestmark = pytest.mark.e2e

VM = "worked"
IMAGE = "worked.raw"


@pytest.fixture(scope="module")
def worker(host: Sources, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of this host with both deployments."""
    with Worker(prefect_server, host.site.config, tmp_path_factory.mktemp("worker")).serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def guest(host: Sources) -> Guest:
    """A running VM."""
    image = host.folder / IMAGE
    image.write_bytes(os.urandom(MIB))
    return host.define(VM, disk("vda", image, "raw")).start()


def test_a_deployed_backup_completes(worker: Worker, host: Sources, guest: Guest) -> None:
    """The worker, started in /, runs the flow from the checkout: Completed, one archive, named after the VM."""
    bases = sources(guest)
    run_id = worker.start("backup-vm", vm=VM)
    run = worker.dashboard.wait_state(run_id, "COMPLETED", timeout=90)
    assert run["name"] == VM
    assert [f"Archive {each['archive']}" for each in host.archives(VM)] == [run["state"]["message"]]
    host.assert_on_bases(guest, bases)
