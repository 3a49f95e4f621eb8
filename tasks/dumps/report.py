"""What a pull leaves behind for people: a table in the dashboard and an event for automations."""

from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from infra.borg.client import CreateResult
from infra.dumps.manifest import DumpManifest
from tasks.dumps.archive import DumpResult
from tasks.dumps.job import DumpJob
from tasks.policy import step
from tasks.report import ARCHIVE_CREATED
from tasks.units import size


@step("report")
def publish(job: DumpJob, manifest: DumpManifest, created: CreateResult | None) -> DumpResult:
    """Write the run's table artifact; emit the event `vmborg.archive.created` if there is a new archive."""
    result = DumpResult(
        host=job.name,
        repository=job.host.repository,
        archive=job.archive if created else "",
        size=manifest.size,
        stored=created.deduplicated_size if created else 0,
        borg_seconds=round(job.repository.seconds, 3),
        sources=manifest.sources,
    )
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
        description="\n\n".join([f"Dumps of **{job.name}**: `{result.archive or 'no new archive'}`", *result.problems]),
    )
    if created:
        emit_event(
            event=ARCHIVE_CREATED,
            resource={
                "prefect.resource.id": f"vmborg.dump.{job.config.hypervisor.name}.{job.name}",
                "prefect.resource.name": job.name,
            },
            payload={"archive": result.archive, "partial": result.partial},
        )
    return result
