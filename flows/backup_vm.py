"""Back up one VM, live and consistent, into one complete archive."""

from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Completed, Failed

from flows.pull_dumps_host import pull_dumps_host
from infra.errors import BorgError, DomainStateChanged, RepositoryUnreachable, VmborgError
from infra.model import DomainFacts
from tasks.archives import create_archive, drop_unfinished, verify_archive
from tasks.dashboard.publish import refresh
from tasks.destinations import Destination, Destinations, require_one, step_for
from tasks.domains import (
    PREFLIGHT_TIMEOUT_S,
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
from tasks.names import is_deployed_alone
from tasks.reading import Reading
from tasks.remembering import remember_reading
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
    but a writable disk is neither in it nor excluded by the configuration, or it is not in all of the repositories that
    it should be in, or a dump that should precede it failed; or Failed. Whatever happens after the snapshot, the VM is
    put back on its own disks before the run ends.

    Args:
        vm: Name or UUID of the VM.
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
    """
    forward_to_run()
    with backup_job(vm, config) as locked:
        recovery = recover_leftovers(locked)
        job = _dump_first(locked, config)
        with one_writer(job.config, job.policy.repository, *job.policy.replicas):
            point, destinations = _archive(job)
        result = publish(job, point, destinations, recovery.actions if recovery else ())
    if is_deployed_alone():
        refresh(job.config)
    if result.partial:
        lines = [f"Not covered: {disk}" for disk in result.uncovered]
        lines += [f"Not in {each.repository}: {each.error['brief']}" for each in result.repositories if each.error]
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


def _archive(job: BackupJob) -> tuple[FrozenPoint, Destinations]:
    """One archive of the domain as it is; once more if it was started, or got another disk, meanwhile."""
    try:
        return _archive_once(job)
    except DomainStateChanged:
        if job.journal.read(job.uuid) is not None:  # it could not be put back: no snapshot goes on top of that
            raise
        return _archive_once(job)


def _archive_once(job: BackupJob) -> tuple[FrozenPoint, Destinations]:
    facts = inspect_domain(job)
    ready = tuple(_prepare(job, facts, each) for each in job.destinations)
    require_one(ready)
    begun: Destinations = ()  # where borg may have kept what is no archive yet
    failed: Destinations = ()
    with Reading(job) as reading:
        try:
            point = freeze_and_snapshot(job, facts, reading)
            begun = failed = tuple(each for each in ready if each.error is None)
            made = create_archive(job, point, ready)
            failed = tuple(each for before, each in zip(ready, made, strict=True) if each.error and not before.error)
        finally:
            _end_window(job, begun, failed)
    verified = tuple(_verify(job, point, each) for each in made)
    require_one(verified)
    if point.reading.has_memory:
        remember_reading(job, point)
    return point, verified


def _end_window(job: BackupJob, begun: Destinations, failed: Destinations) -> None:
    """Put the guest back; then, not before, for a repository may hang, delete what borg kept and is no archive.

    That is also what nobody will verify: a signal ends the run once the guest is back. Where the guest could not be put
    back, whoever recovers the open journal does it.
    """
    try:
        put_back_whatever_happens(job)
    except VmborgError:
        raise
    except BaseException:
        drop_unfinished(job, begun)
        raise
    drop_unfinished(job, failed)


def _prepare(job: BackupJob, facts: DomainFacts, destination: Destination) -> Destination:
    """The step `preflight`. What is wrong with one repository of several does not keep the others from being used."""
    if destination.repository is None:
        return destination
    try:
        step_for(destination, preflight, first=job.policy.repository)(job, facts, destination.repository)
    except BorgError as error:
        return destination.failed(error)
    except TimeoutError as error:  # Prefect's, of the step
        return destination.failed(_silent(destination.name, error))
    return destination


def _silent(name: str, error: TimeoutError) -> RepositoryUnreachable:
    return RepositoryUnreachable(
        f"The repository {name!r} did not answer in time.",
        evidence=f"the step preflight took more than {PREFLIGHT_TIMEOUT_S:.0f} s ({error})",
        remedy="Look whether its storage, or the server that it is on, answers.",
    )


def _verify(job: BackupJob, point: FrozenPoint, destination: Destination) -> Destination:
    """The step `verify`."""
    if destination.repository is None or destination.created is None:
        return destination
    try:
        step = step_for(destination, verify_archive, first=job.policy.repository)
        return replace(destination, figures=step(job, point, destination.repository, destination.created))
    except VmborgError as error:
        return destination.failed(error)
