"""Back up one VM, live and consistent, into one complete archive."""

from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Completed, Failed

from flows.pull_dumps_host import pull_dumps_host
from infra.errors import DomainStateChanged
from tasks.archives import ArchiveFigures, create_archive, drop_unfinished, verify_archive
from tasks.domains import (
    FrozenPoint,
    freeze_and_snapshot,
    inspect_domain,
    preflight,
    put_back_whatever_happens,
    recover_leftovers,
)
from tasks.dumps.archive import DumpResult
from tasks.dumps.hosts import hosts_before
from tasks.hooks import put_back_after
from tasks.job import BackupJob, backup_job
from tasks.limits import one_writer
from tasks.logs import forward_to_run
from tasks.report import BackupResult, publish

PARTIAL = "Partial"


def _recover(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's names
    """Prefect calls hooks by keyword: the parameters must have these names."""
    put_back_after(flow_run.parameters)


@flow(
    name="backup-vm",
    flow_run_name="{vm}",
    persist_result=False,
    on_cancellation=[_recover],
    on_crashed=[_recover],
)
def backup_vm(vm: str, config: str | None = None) -> State[BackupResult]:
    """Back up one VM: inspect, recover, preflight, snapshot, create, pivot, verify.

    The run ends Completed with a complete archive, or Failed with the state name `Partial` when the archive is good
    but a writable disk is neither in it nor excluded by the configuration, or a dump that should precede it failed; or
    Failed. Whatever happens after the
    snapshot, the VM is put back on its own disks before the run ends.

    Args:
        vm: Name or UUID of the VM.
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
    """
    forward_to_run()
    with backup_job(vm, config) as locked:
        recovery = recover_leftovers(locked)
        job = _dump_first(locked, config)
        with one_writer(job.config, job.policy.repository):
            point, figures = _archive(job)
        result = publish(job, point, figures, recovery.actions if recovery else ())
    if result.partial:
        lines = [f"Not covered: {disk}" for disk in result.uncovered]
        lines += [f"Not dumped: {problem}" for problem in result.dump_problems]
        return Failed(name=PARTIAL, message="; ".join(lines), data=result)
    return Completed(message=f"Archive {result.archive}", data=result)


def _dump_first(job: BackupJob, config: str | None) -> BackupJob:
    """Pull the dump hosts that precede this VM's backup. What fails there makes the run partial and stops nothing."""
    names: list[str] = []
    problems: list[str] = []
    for host in hosts_before(job.config, name=job.name, uuid=job.uuid):
        state: State[Any] = pull_dumps_host(host, config, vm=job.name, return_state=True)
        found = state.result(raise_on_failure=False)
        if isinstance(found, DumpResult):
            names += [found.archive] if found.archive else []
            problems += [f"{host}: {problem}" for problem in found.problems]
        elif isinstance(found, Exception):
            problems.append(f"{host}: {found}".splitlines()[0])
        else:
            raise found
    return replace(job, dumps=tuple(names), dump_problems=tuple(problems))


def _archive(job: BackupJob) -> tuple[FrozenPoint, ArchiveFigures]:
    """One archive of the domain as it is; once more if it was started, or got another disk, meanwhile."""
    try:
        return _archive_once(job)
    except DomainStateChanged:
        if job.journal.read(job.uuid) is not None:  # it could not be put back: no snapshot goes on top of that
            raise
        return _archive_once(job)


def _archive_once(job: BackupJob) -> tuple[FrozenPoint, ArchiveFigures]:
    facts = inspect_domain(job)
    preflight(job, facts)
    copying = False
    try:
        point = freeze_and_snapshot(job, facts)
        copying = True
        created = create_archive(job, point)
        copying = False
    finally:
        put_back_whatever_happens(job)
        if copying:  # not before the guest is back: a repository may hang
            drop_unfinished(job)
    return point, verify_archive(job, point, created)
