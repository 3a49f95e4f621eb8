"""Backups that a Prefect worker runs, from its schedule or a click. Those that end badly are faults: tests/faults."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import RRuleSchedule

from infra.config.load import load
from tasks.limits import limit_name
from tests.e2e.checks import sources
from tests.e2e.sources import MIB, Sources, disk
from tests.e2e.worker import Worker
from tests.guests import Guest, wait_for
from tests.integration.cloud.servers import Cloud
from tests.integration.dumps.servers import sshd

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


def test_after_an_outage_a_schedule_is_made_up_for_once(worker: Worker) -> None:
    """Of three runs that no worker took in time the last one runs; the others are Skipped and name it."""
    worker.stop()
    start = datetime.now(UTC) + timedelta(seconds=15)
    rule = f"DTSTART:{start:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;INTERVAL=2;COUNT=3"
    with SyncPrefectClient(worker.dashboard.api) as client:
        there = client.read_deployment_by_name(f"check/{worker.pool}")
        client.create_deployment(
            there.flow_id,
            "late",
            entrypoint=there.entrypoint,
            parameters=there.parameters,
            pull_steps=there.pull_steps,
            job_variables=there.job_variables,
            work_pool_name=worker.pool,
            concurrency_limit=1,
            schedules=[DeploymentScheduleCreate(schedule=RRuleSchedule(rrule=rule), active=True)],
        )
        client.delete_deployment(there.id)
    wait_for(lambda: len(worker.runs("check")) == 3, timeout=60, what="runs of the schedule", interval=0.5)
    wait_for(lambda: datetime.now(UTC) > start + timedelta(seconds=6), timeout=60, what="all of them late")
    worker.ensure()

    def ended() -> bool:
        return all(run["state_type"] == "COMPLETED" for run in worker.runs("check"))

    wait_for(ended, timeout=120, what="the end of all runs", interval=0.5)
    *skipped, last = sorted(worker.runs("check"), key=lambda run: run["expected_start_time"])
    assert [run["state_name"] for run in skipped] == ["Skipped", "Skipped"]
    assert last["state"]["message"] == "1 repositories are sound"
    assert all(f"{start + timedelta(seconds=4):%H:%M:%S}" in run["state"]["message"] for run in skipped)


def test_the_upkeep_completes(worker: Worker, host: Sources, guest: Guest, tmp_path: Path) -> None:
    """The deployments check, cloud-sync and prune run as they stand, each Completed, with its table and its effect."""
    cloud = Cloud(tmp_path)
    before = host.site.config.read_text(encoding="utf-8")
    offsite = {"remote": "s3:bucket/vmborg", "config": str(cloud.config)}
    settings = json.loads(before) | {"cloud": {"offsite": offsite}}
    settings["vms"]["defaults"]["retention"] = {"last": 1}
    host.backup(guest.name)
    host.site.config.write_text(json.dumps(settings), encoding="utf-8")
    try:
        worker.deploy()
        with cloud.serving():
            told = {flow: completed(worker, flow) for flow in ("check", "cloud-sync", "prune")}
    finally:
        host.site.config.write_text(before, encoding="utf-8")
    assert [row["result"] for row in told["check"]] == ["sound"]
    assert [(row["copy"], row["result"], row["proof"]) for row in told["cloud-sync"]] == [("offsite", "whole", "hash")]
    assert [row["fate"] for row in told["prune"] if row["source"] == guest.name] == ["kept", "pruned"]
    assert len(host.archives(guest.name)) == 1
    assert any(name.startswith("bucket/vmborg/listings/") for name in cloud.content())


def test_a_scheduled_pull_waits_for_its_repository(worker: Worker, host: Sources, tmp_path: Path) -> None:
    """While a backup has the repository's slot, dumps are pulled, and their archive is begun only when it is free."""
    before = host.site.config.read_text(encoding="utf-8")
    names = [limit_name(load(host.site.config), "main")]
    with sshd(tmp_path) as ssh, SyncPrefectClient(worker.dashboard.api) as client:
        login = {"address": "127.0.0.1", "port": ssh.port, "user": "root", "key": str(ssh.client_key)}
        dumped = {**login, "sources": [{"kind": "command", "command": "echo whole"}]}
        host.site.config.write_text(json.dumps(json.loads(before) | {"dumps": {"hosts": {"db": dumped}}}))
        try:
            host.site.ok("dumps", "trust", "db", "--yes")
            worker.deploy()
            client.increment_concurrency_slots(names, slots=1, mode="concurrency").raise_for_status()
            run_id = worker.start("pull-dumps")
            latest = load(host.site.config).state.dumps / "db" / "latest"
            wait_for(latest.exists, timeout=90, what="the dumps of the host")
            assert host.site.ok("dumps", "list")["archives"] == []
            freed = datetime.now(UTC)
            client.release_concurrency_slots(names, slots=1, occupancy_seconds=1).raise_for_status()
            worker.dashboard.wait_state(run_id, "COMPLETED", timeout=90)
            archive = worker.dashboard.task(worker.dashboard.last_run("db"), "archive")
            assert datetime.fromisoformat(archive["start_time"]) > freed
            assert [each["good"] for each in host.site.ok("dumps", "list")["archives"]] == [True]
        finally:
            host.site.config.write_text(before, encoding="utf-8")


def completed(worker: Worker, flow: str) -> list[dict[str, str]]:
    """Run a deployment without any parameter; the rows of the table that it leaves in the dashboard."""
    run = worker.dashboard.wait_state(worker.start(flow), "COMPLETED", timeout=120)
    artifact = worker.dashboard.artifact(run, "table")
    assert artifact
    rows: list[dict[str, str]] = json.loads(artifact["data"])
    return rows
