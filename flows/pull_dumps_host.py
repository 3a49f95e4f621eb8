"""Pull the dumps of one host into one archive; a source that fails keeps its last good dump."""

from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from infra.dumps.manifest import DumpedSource, DumpManifest
from infra.dumps.source import Source
from infra.errors import BorgError, DumpFailed, VmborgError
from infra.ssh.group import require_group
from tasks.destinations import Destination, require_one, step_for
from tasks.dumps.archive import DumpResult, archive_tree, keep_tree, open_first
from tasks.dumps.job import DumpJob, dump_job
from tasks.dumps.report import publish
from tasks.dumps.sources import dump_source, keep_all, reach
from tasks.limits import one_writer
from tasks.logs import forward_to_run

PARTIAL = "Partial"


@flow(name="pull-dumps-host", flow_run_name="{host}", persist_result=False)
def pull_dumps_host(
    host: str, config: str | None = None, *, accept_smaller: bool = False, vm: str = ""
) -> State[DumpResult]:
    """Dump every source of one host, prove each dump, store the tree as one archive.

    Completed when everything is fresh and good. Failed with the state name `Partial` when a source failed: the archive
    then holds its last good dump, marked stale; or when one of several repositories has no archive. Without anything
    new there is no archive; without anything good at all, or without a repository that takes it, the run fails.

    Args:
        host: The host, by its name in `dumps.hosts`.
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
        accept_smaller: Believe dumps that are much smaller than the last ones.
        vm: The VM whose backup this precedes, for the archive's comment.
    """
    forward_to_run()
    with dump_job(host, config, accept_smaller=accept_smaller, vm=vm) as job:
        ready = tuple(_open(job, each) for each in job.destinations)
        require_one(ready)
        reach(job)
        sources = [_dump(job, source) for source in job.host.sources]
        require_group()  # what a signal cut short is no reason for an archive
        if not any(source.dumps for source in sources):
            raise _nothing(job, sources)
        manifest = keep_tree(job, sources)
        fresh = any(source.fresh for source in sources)
        done = tuple(_archive(job, manifest, each) for each in ready) if fresh else ready
        require_one(done)
        result = publish(job, manifest, done)
    if result.partial:
        return Failed(name=PARTIAL, message="; ".join(result.problems), data=result)
    return Completed(message=f"Archive {result.archive}", data=result)


def _dump(job: DumpJob, source: Source) -> DumpedSource:
    """One source; whatever is wrong with it stays its own affair."""
    run: Any = dump_source.with_options(task_run_name=source.label)
    state: State[Any] = run(job, source, return_state=True)
    found = state.result(raise_on_failure=False)
    if isinstance(found, DumpedSource):
        return found
    if isinstance(found, VmborgError):
        return keep_all(job, source, found)
    if isinstance(found, Exception):
        return keep_all(job, source, VmborgError(f"The step ended unexpectedly: {type(found).__name__}: {found}"))
    raise found


def _open(job: DumpJob, destination: Destination) -> Destination:
    """The step `repository`. One of several that does not open does not keep the others from being used."""
    if destination.repository is None:
        return destination
    try:
        step_for(destination, open_first, first=job.host.repository)(job, destination.repository)
    except BorgError as error:
        return destination.failed(error)
    return destination


def _archive(job: DumpJob, manifest: DumpManifest, destination: Destination) -> Destination:
    """The step `archive`, while nobody else writes to this repository."""
    if destination.repository is None or destination.error is not None:
        return destination
    require_group()
    try:
        with one_writer(job.config, destination.name):
            store = step_for(destination, archive_tree, first=job.host.repository)
            figures = store(job, manifest, destination.repository)
    except VmborgError as error:
        require_group()  # a signal ends the run, not one repository
        return destination.failed(error)
    return replace(destination, figures=figures)


def _nothing(job: DumpJob, sources: list[DumpedSource]) -> DumpFailed:
    lines = [problem for source in sources for problem in source.problems]
    return DumpFailed(
        f"Nothing of {job.name!r} could be dumped, and there is no earlier dump.",
        evidence="\n".join(lines) or "its sources hold nothing",
        remedy="Mend what these lines name, then pull again.",
    )
