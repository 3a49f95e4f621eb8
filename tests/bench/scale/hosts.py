"""Some simulated hypervisors in one process: python -m tests.bench.scale.hosts PLAN NAME [NAME].

Deployments, workers, the flow that starts the runs, their waiting for the repository's slot, their logs, artifacts and
events are those of the product. What is simulated is the backup itself, and runs are threads instead of processes: the
server cannot tell, and two cores are enough for forty hosts.
"""

import json
import logging
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.workers.base import BaseJobConfiguration, BaseWorkerResult
from prefect.workers.process import ProcessWorker

from deployments.registry.changes import Changes
from deployments.registry.deploy import deploy
from infra.config.load import load
from infra.config.models import Config
from tasks.fleet import start_runs, wait_for_runs
from tasks.limits import one_writer
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import artifact_key, step
from tasks.progress import ProgressReporter

logger = logging.getLogger("vmborg.backup")

AROUND = ("inspect", "recover", "preflight", "snapshot"), ("pivot", "verify", "remember", "report")
"""The steps of a backup before and after `create`."""

AROUND_S = 0.3
"""Seconds that each of them takes."""

LINES = 3
"""Lines that each of them logs."""

GIB = 1024**3


def read(plan: Path) -> dict[str, Any]:
    """What is simulated."""
    found: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
    return found


def configuration(plan: Path, host: str) -> Path:
    """The configuration of one of the hosts; written if it is not there."""
    path = plan.parent / f"{host}.yaml"
    if not path.exists():
        settings = {
            "state_dir": str(plan.parent / host),
            "hypervisor": {"name": host},
            "repositories": {"main": {"location": f"/srv/{host}", "encryption": "none"}},
        }
        path.write_text(json.dumps(settings), encoding="utf-8")
    return path


@step("simulated")
def _around() -> None:
    for number in range(LINES):
        logger.info("what a step says, line %s", number)
    time.sleep(AROUND_S)


@step("create")
def _create(vm: str, seconds: float) -> None:
    size = 40 * GIB
    with ProgressReporter(source=vm, key=artifact_key("progress", vm), total=size) as progress:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            progress.report(int(size * (1 - left / seconds)))
            time.sleep(min(left, 1.0))
        progress.finish()


@flow(name="backup-vm", flow_run_name="{vm}", persist_result=False)
def backup_vm(vm: str, config: str) -> None:
    """What a backup asks of the server, with sleep instead of work."""
    forward_to_run()
    settings, mean = load(Path(config)), read(Path(config).parent / "plan.json")["seconds"]
    before, after = AROUND
    for name in before[:-1]:
        _around.with_options(name=name, task_run_name=name)()
    with one_writer(settings, "main"):
        _around.with_options(name=before[-1], task_run_name=before[-1])()
        _create(vm, mean * random.uniform(0.5, 1.5))
        for name in after:
            _around.with_options(name=name, task_run_name=name)()
    create_table_artifact(key=artifact_key("backup", vm), table=[{"disk": "vda", "size": "40.0 GiB"}])


@flow(name="backup-fleet", flow_run_name=on_host("all VMs"), persist_result=False)
def backup_fleet(config: str) -> None:
    """The product's own, with VMs that are named instead of found."""
    forward_to_run()
    host = load(Path(config)).hypervisor.name
    names = [f"{host}-vm{number:02}" for number in range(read(Path(config).parent / "plan.json")["vms"])]
    outcomes = wait_for_runs(host, start_runs(f"backup-vm/{host}", names, {"config": config}))
    create_table_artifact(key="backup-fleet", table=[{"VM": each.vm, "state": each.state} for each in outcomes])
    bad = [each.vm for each in outcomes if not each.complete]
    if bad:
        raise RuntimeError(f"not complete: {', '.join(bad)}")


FLOWS: dict[str, Flow[..., Any]] = {each.name: each for each in (backup_vm, backup_fleet)}


class SimulatedWorker(ProcessWorker):
    """A worker that polls, beats and proposes as any, and runs its runs in threads."""

    type = "simulated"
    threads: ThreadPoolExecutor

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,  # noqa: ARG002 - Prefect's names
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> BaseWorkerResult:
        """Run it to its end."""
        if task_status is not None:
            task_status.started(0)
        await anyio.to_thread.run_sync(partial(_execute, flow_run.id), limiter=self.limits)
        return BaseWorkerResult(identifier=str(flow_run.id), status_code=0)

    limits = anyio.CapacityLimiter(1000)


def _execute(run: UUID) -> None:
    """What `prefect flow-run execute` does in a process of its own."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run)
        assert found.deployment_id is not None
        client.read_deployment(found.deployment_id)
        wanted = FLOWS[client.read_flow(found.flow_id).name]
    run_flow(wanted, flow_run=found, parameters=found.parameters, return_type="state")


def register(configs: Sequence[tuple[Path, Config]]) -> None:
    """`vmborg deploy` of each host."""
    with get_client(sync_client=True) as client:
        for path, config in configs:
            deploy(client, config, path, Changes(dry_run=False))


async def serve(names: Sequence[str]) -> None:
    """A worker for each host, until the process is ended."""
    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(SimulatedWorker(work_pool_name=name, name=name).start)


def main(arguments: Sequence[str]) -> None:
    """Deploy, say so, serve."""
    plan, names = Path(arguments[0]), arguments[1:]
    paths = [configuration(plan, name) for name in names]
    register([(path, load(path)) for path in paths])
    Path(plan.parent, f"{names[0]}.ready").touch()
    anyio.run(serve, names)


if __name__ == "__main__":
    main(sys.argv[1:])
