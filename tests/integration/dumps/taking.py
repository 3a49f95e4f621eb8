"""One source taken without Prefect around it: the plain functions of the steps, for errors as they are raised."""

from collections.abc import Generator
from contextlib import contextmanager

from infra.dumps.manifest import DumpedSource
from infra.errors import VmborgError
from tasks.dumps.archive import archive_tree, keep_tree
from tasks.dumps.job import DumpJob, dump_job
from tasks.dumps.sources import dump_source, keep_all, reach
from tests.integration.dumps.place import Place


@contextmanager
def job_of(place: Place, *, accept_smaller: bool = False) -> Generator[DumpJob]:
    """A pull of the host `db`, begun."""
    with dump_job("db", str(place.config), accept_smaller=accept_smaller) as job:
        yield job


def store(place: Place) -> str:
    """Dump every source, keep the tree and store it, as the flow does; everything must be good. The archive's name."""
    place.initialise()
    with job_of(place) as job:
        reach.fn(job)
        done = [dump_source.fn(job, source) for source in job.host.sources]
        assert all(source.good for source in done), done
        manifest = keep_tree.fn(job, done)
        for each in job.destinations:
            assert each.repository
            archive_tree.fn(job, manifest, each.repository)
        return job.archive


def take(place: Place, *, accept_smaller: bool = False) -> list[DumpedSource]:
    """Dump every source and keep the tree, as the flow does; store no archive. Raises what reaching the host raises."""
    with job_of(place, accept_smaller=accept_smaller) as job:
        reach.fn(job)
        done: list[DumpedSource] = []
        for source in job.host.sources:
            try:
                done.append(dump_source.fn(job, source))
            except VmborgError as error:
                done.append(keep_all(job, source, error))
        if any(each.dumps for each in done):
            keep_tree.fn(job, done)
    return done
