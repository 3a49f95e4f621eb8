"""The flow backup-fleet through a real worker: a run for each VM, failures apart, cancelled as a whole."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.checks import sources
from tests.e2e.dashboard import Row
from tests.e2e.held import borg_creating, gone
from tests.e2e.sources import MIB, Sources, disk
from tests.e2e.worker import Worker
from tests.guests import wait_for

pytestmark = pytest.mark.e2e

ELSEWHERE = ["[!f]*", "f[!l]*", "fl[!e]*", "fle[!e]*"]
"""Whatever other tests have defined on this host: everything that does not begin with our own prefix."""


@pytest.fixture(scope="module")
def worker(host: Sources, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker of this host, which backs two VMs up at a time and only those of these tests."""
    configure(host, exclude=ELSEWHERE, parallel=2)
    with Worker(prefect_server, host.site.config, tmp_path_factory.mktemp("worker")).serving() as serving:
        serving.unschedule()
        yield serving


def configure(host: Sources, **vms: Any) -> None:
    """Set keys of `vms` in the configuration."""
    settings = json.loads(host.site.config.read_text(encoding="utf-8"))
    settings["vms"] |= vms
    host.site.config.write_text(json.dumps(settings), encoding="utf-8")


def children(worker: Worker, fleet: str) -> dict[str, Row]:
    """The runs that a fleet started, by their names."""
    found = worker.dashboard.ask("flow_runs", flow_runs={"parent_flow_run_id": {"any_": [fleet]}})
    return {run["name"]: run for run in found}


def archived(host: Sources) -> set[str]:
    """The VMs of which there is an archive."""
    return {each["vm"] for each in host.site.ok("list")["archives"]}


def test_one_vm_does_not_fail_another(worker: Worker, host: Sources) -> None:
    """A VM without its disk fails, one with a shared disk is partial, the third is complete: each has its own run."""
    good, shared, lost = "fleet-good", "fleet-shared", "fleet-lost"
    more = disk("vdb", host.image("fleet-more.raw", "raw"), "raw", more="<shareable/>", driver="cache='none'")
    host.define(good, disk("vda", host.image("fleet-good.qcow2", fill=1)))
    host.define(shared, disk("vda", host.image("fleet-shared.qcow2", fill=2)), more)
    host.define(lost, disk("vda", host.folder / "nowhere.qcow2"))
    fleet = worker.start("backup-fleet")
    run = worker.dashboard.wait_state(fleet, "FAILED", timeout=150)
    ended = {name: child["state_name"] for name, child in children(worker, fleet).items()}
    assert ended == {good: "Completed", shared: "Partial", lost: "Failed"}
    assert run["state"]["message"] == f"1 of 3 VMs complete; {lost} Failed, {shared} Partial"
    table = worker.dashboard.artifact(run, "table")
    assert table
    rows = {row["VM"]: row for row in json.loads(table["data"])}
    assert rows[good]["what"] == f"Archive {host.archives(good)[-1]['archive']}"
    assert archived(host) == {good, shared}
    configure(host, exclude=[*ELSEWHERE, "fleet-*"])


def test_cancelled_with_all_its_runs(worker: Worker, host: Sources) -> None:
    """Every run is Cancelling within 15 s and Cancelled within 60 s; the VM on its overlay is back on its disk."""
    names = ["fleet2-a", "fleet2-b", "fleet2-c"]
    guests = {}
    for name in names:
        image = host.folder / f"{name}.raw"
        image.write_bytes(os.urandom(64 * MIB))
        guests[name] = host.define(name, disk("vda", image, "raw")).start()
    bases = {name: sources(guest) for name, guest in guests.items()}
    fleet = worker.start("backup-fleet")
    borg = wait_for(lambda: borg_creating(host.site.repository_path), timeout=90, what="borg create", interval=0.01)
    os.kill(borg, signal.SIGSTOP)
    assert [name for name in names if sources(guests[name]) != bases[name]], "a VM is on its overlay"

    def one_waits_for_the_repository() -> bool:
        return [run["state_type"] for run in children(worker, fleet).values()].count("RUNNING") == 2

    wait_for(one_waits_for_the_repository, timeout=60, what="two runs", interval=0.3)
    worker.prefect("flow-run", "cancel", fleet)

    def states() -> set[str]:
        return {run["state_type"] for run in children(worker, fleet).values()}

    wait_for(lambda: states() <= {"CANCELLING", "CANCELLED"}, timeout=15, what="Cancelling", interval=0.3)

    def over() -> bool:
        back = all(sources(guests[name]) == bases[name] for name in names)
        return back and states() == {"CANCELLED"} and worker.dashboard.run(fleet)["state_type"] == "CANCELLED"

    wait_for(over, timeout=45, what="everything Cancelled and back", interval=0.3)
    assert gone(borg)
    for name, guest in guests.items():
        host.assert_on_bases(guest, bases[name])
    assert not archived(host) & set(names)
