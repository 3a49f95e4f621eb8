"""Back up one VM, live and consistent, into one complete archive."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Completed, Failed

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
from tasks.hooks import put_back_after
from tasks.job import BackupJob, backup_job
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
    but a writable disk is neither in it nor excluded by the configuration, or Failed. Whatever happens after the
    snapshot, the VM is put back on its own disks before the run ends.

    Args:
        vm: Name or UUID of the VM.
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
    """
    forward_to_run()
    with backup_job(vm, config) as job:
        recovery = recover_leftovers(job)
        point, figures = _archive(job)
        result = publish(job, point, figures, recovery.actions if recovery else ())
    if result.partial:
        return Failed(name=PARTIAL, message=f"Not covered: {'; '.join(result.uncovered)}", data=result)
    return Completed(message=f"Archive {result.archive}", data=result)


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
