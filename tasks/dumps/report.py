"""What a pull leaves behind for people: a table in the dashboard and an event for automations."""

from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from infra.dumps.manifest import DumpManifest
from tasks.destinations import ArchiveFigures, Destinations, repository_result, seconds_in_borg
from tasks.dumps.archive import DumpResult
from tasks.dumps.job import DumpJob
from tasks.growth import dump_key, record
from tasks.policy import step
from tasks.report import ARCHIVE_CREATED
from tasks.space import remember_told
from tasks.units import size


@step("report")
def publish(job: DumpJob, manifest: DumpManifest, destinations: Destinations) -> DumpResult:
    """Write the run's table artifact; emit the event `vmborg.archive.created` if there is a new archive."""
    created = next(((each.name, each.figures) for each in destinations if each.figures is not None), None)
    repository, figures = created or (job.host.repository, None)
    result = DumpResult(
        host=job.name,
        repository=repository,
        archive=job.archive if figures else "",
        size=manifest.size,
        stored=figures.stored if figures else 0,
        borg_seconds=seconds_in_borg(destinations),
        sources=manifest.sources,
        repositories=tuple(repository_result(each) for each in destinations),
        # What is new to a replica says nothing about what is usual: its history is another one.
        unexpected=_growth(job, figures) if figures and repository == job.host.repository else "",
    )
    remember_told(job.config, destinations, job.started)
    create_table_artifact(
        key="dump-result",
        table=[
            {
                "source": source.source,
                "dumps": len(source.dumps),
                "size": size(sum(dump.size for dump in source.dumps)),
                "seconds": source.seconds,
                "state": "good" if source.good else "stale" if source.dumps else "failed",
            }
            for source in result.sources
        ],
        description="\n\n".join(_lines(result)),
    )
    if result.archive:
        emit_event(
            event=ARCHIVE_CREATED,
            resource={
                "prefect.resource.id": f"vmborg.dump.{job.config.hypervisor.name}.{job.name}",
                "prefect.resource.name": job.name,
            },
            payload={"archive": result.archive, "partial": result.partial},
        )
    return result


def _lines(result: DumpResult) -> list[str]:
    lines = [f"Dumps of **{result.host}**: `{result.archive or 'no new archive'}`", *result.problems]
    there = [each.repository for each in result.repositories if each.stored is not None]
    lines += [f"It is in {', '.join(f'`{name}`' for name in there)}."] if len(there) > 1 else []
    return lines + ([f"**Unexpected growth:** {result.unexpected}"] if result.unexpected else [])


def _growth(job: DumpJob, figures: ArchiveFigures) -> str:
    return record(
        job.config.state,
        job.config.check,
        source=dump_key(job.name),
        name=job.name,
        archive=figures.archive,
        stored=figures.stored,
        when=job.started,
    )
