"""A worker that is stopped the documented way: what runs ends well, what is due waits for the next worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.process import spawn
from tests.e2e.checks import sources
from tests.e2e.held import hold_borg, let_go
from tests.e2e.sources import MIB, Sources, disk
from tests.e2e.worker import Worker
from tests.guests import Guest, wait_for
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.e2e

VM = "drained"
UNIT = Path(__file__).parents[2] / "deployments/systemd/vmborg-worker.service"


def capabilities() -> str:
    """What the worker's unit leaves to root, as setpriv wants it."""
    line = next(line for line in UNIT.read_text(encoding="utf-8").splitlines() if line.startswith("CapabilityBounding"))
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in line.partition("=")[2].split())])


@pytest.fixture(scope="module")
def worker(host: Sources, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that may do what its unit lets it do, and no more."""
    confined = ["setpriv", "--no-new-privs", f"--bounding-set={capabilities()}"]
    home = tmp_path_factory.mktemp("worker")
    with Worker(prefect_server, host.site.config, home, prefix=confined).serving() as serving:
        serving.unschedule()
        yield serving


@pytest.fixture(scope="module")
def guest(host: Sources) -> Guest:
    """A running VM."""
    image = host.folder / "drained.raw"
    image.write_bytes(os.urandom(64 * MIB))
    return host.define(VM, disk("vda", image, "raw")).start()


def test_a_drained_worker_loses_nothing(worker: Worker, host: Sources, guest: Guest, tmp_path: Path) -> None:
    """`vmborg drain` waits for the backup, which completes; one that comes meanwhile starts after `--resume`."""
    bases = sources(guest)
    first = worker.start("backup-vm", vm=VM)
    borg = hold_borg(host.site.repository_path, host.folder / "drained.raw")
    command = [str(VMBORG), "--config", str(host.site.config), "drain"]
    log = tmp_path / "drain.log"
    with log.open("wb") as told, spawn(command, env={"PREFECT_API_URL": host.api}, stdout=told, stderr=told) as drain:
        wait_for(lambda: f"waiting for {VM}" in log.read_text(), timeout=60, what="drain to wait", interval=0.3)
        second = worker.start("backup-vm", vm=VM)
        assert drain.poll() is None
        let_go(borg)
        assert drain.wait(120) == 0, log.read_text()
    assert worker.dashboard.run(first)["state_type"] == "COMPLETED"
    worker.stop()
    assert worker.dashboard.run(second)["state_type"] == "SCHEDULED"
    assert host.site.ok("drain", "--resume") == {"pool": worker.pool, "paused": False}
    worker.ensure()
    worker.dashboard.wait_state(second, "COMPLETED", timeout=120)
    assert len(host.archives(VM)) == 2
    host.assert_on_bases(guest, bases)
