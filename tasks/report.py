"""What a run leaves behind for people: a table in the dashboard, an event for automations, a result for the command."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from tasks.destinations import (
    ArchiveFigures,
    Destinations,
    RepositoryResult,
    repository_result,
    seconds_in_borg,
)
from tasks.domains import FrozenPoint
from tasks.growth import record
from tasks.job import BackupJob
from tasks.policy import step, vm_key
from tasks.space import remember_told
from tasks.units import size

logger = logging.getLogger("vmborg.backup")

ARCHIVE_CREATED = "vmborg.archive.created"


@dataclass(frozen=True, slots=True)
class BackupResult:
    """One VM's backup, as `vmborg backup --json` prints it. Sizes in bytes, `frozen_ms` in milliseconds."""

    vm: str
    uuid: str
    archive: str
    repository: str  # the first that has it; the figures are of this one
    consistency: str
    consistency_reason: str
    frozen_ms: int
    original: int
    stored: int
    seconds: float  # of the create step
    borg_seconds: float  # spent in borg in all
    disks: tuple[dict[str, Any], ...]
    uncovered: tuple[str, ...]
    recovered: tuple[str, ...]  # what an earlier run's leftovers needed
    dumps: tuple[str, ...] = ()  # archives of dumps of the same recovery point
    dump_problems: tuple[str, ...] = ()
    unexpected: str = ""  # what is unexpected about the amount of new data
    repositories: tuple[RepositoryResult, ...] = ()  # all that it was to go to
    stale: str = ""  # what had changed without a dirty bit, if anything: earlier archives are suspect then

    @property
    def partial(self) -> bool:
        """Whether a writable disk is missing that nobody excluded, or a dump that was to precede it, or a replica."""
        return bool(self.uncovered or self.dump_problems or any(each.error for each in self.repositories))


@step("report")
def publish(job: BackupJob, point: FrozenPoint, destinations: Destinations, recovered: tuple[str, ...]) -> BackupResult:
    """Write the run's table artifact and emit the event `vmborg.archive.created`."""
    repository, figures = next((each.name, each.figures) for each in destinations if each.figures is not None)
    how = {each.target: {"mode": each.mode, "reason": each.reason} for each in point.reading.told()}
    result = BackupResult(
        vm=job.name,
        uuid=job.uuid,
        archive=figures.archive,
        repository=repository,
        consistency=point.freeze.consistency.value,
        consistency_reason=point.freeze.reason,
        frozen_ms=point.freeze.frozen_ms,
        original=figures.original,
        stored=figures.stored,
        seconds=figures.seconds,
        borg_seconds=seconds_in_borg(destinations),
        disks=tuple({**asdict(disk), **how[disk.target]} for disk in figures.disks),
        uncovered=tuple(f"{disk.target}: {disk.reason}" for disk in point.facts.uncovered),
        recovered=recovered,
        dumps=job.dumps,
        dump_problems=job.dump_problems,
        # What is new to a replica says nothing about what is usual: its history is another one.
        unexpected=_growth(job, figures) if repository == job.policy.repository else "",
        repositories=tuple(repository_result(each) for each in destinations),
        stale=point.reading.doubts,
    )
    remember_told(job.config, destinations, job.started)
    create_table_artifact(
        key=vm_key("backup", job.name, job.uuid),
        table=[_row(disk, result) for disk in result.disks],
        description=_describe(result),
    )
    _emit_created(job, result)
    logger.info("archive %s holds %d bytes, %d of them new", result.archive, result.original, result.stored)
    return result


def _emit_created(job: BackupJob, result: BackupResult) -> None:
    emit_event(
        event=ARCHIVE_CREATED,
        resource={
            "prefect.resource.id": f"vmborg.vm.{job.config.hypervisor.name}.{job.uuid}",
            "prefect.resource.name": job.name,
        },
        payload={"archive": result.archive, "partial": result.partial, "consistency": result.consistency},
    )


def _growth(job: BackupJob, figures: ArchiveFigures) -> str:
    return record(
        job.state,
        job.config.check,
        source=job.uuid,
        name=job.name,
        archive=figures.archive,
        stored=figures.stored,
        when=job.started,
    )


def _row(disk: dict[str, Any], result: BackupResult) -> dict[str, Any]:
    return {
        "disk": disk["target"],
        "size": size(disk["size"]),
        "read": size(disk["read"]),
        "stored": size(disk["stored"]),
        "frozen ms": result.frozen_ms,
        "consistency": result.consistency,
        "how": f"{disk['mode']}: {disk['reason']}",
    }


def _describe(result: BackupResult) -> str:
    lines = [
        f"**{result.vm}** is in `{result.repository}` as `{result.archive}`.",
        f"Consistency: {result.consistency} ({result.consistency_reason}).",
    ]
    for each in result.repositories:
        if each.error is not None:
            lines.append(f"**Not in `{each.repository}`:** {each.error['type']}: {each.error['brief']}")
        elif each.repository != result.repository:
            lines.append(f"It is in `{each.repository}`, too.")
    lines += [f"**Not covered:** {disk}" for disk in result.uncovered]
    lines += [f"Dumped just before: `{archive}`" for archive in result.dumps]
    lines += [f"**Not dumped:** {problem}" for problem in result.dump_problems]
    lines += [f"**Unexpected growth:** {result.unexpected}"] if result.unexpected else []
    lines += [f"**Earlier archives are suspect:** {result.stale}"] if result.stale else []
    lines += [f"Recovered first: {action}" for action in result.recovered]
    return "\n\n".join(lines)
