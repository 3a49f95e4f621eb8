"""The repositories that one archive goes to, and what came of it in each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from infra.borg.client import CreateResult, Repository
from infra.config.models import Config
from infra.errors import ConfigError, VmborgError
from tasks.repositories import open_repository


@dataclass(frozen=True, slots=True)
class DiskFigures:
    """One disk in the run's report; bytes."""

    target: str
    size: int  # what the guest sees
    read: int  # read from storage for this archive; 0 when borg knew the file to be unchanged
    stored: int  # new data in the repository after deduplication and compression


@dataclass(frozen=True, slots=True)
class ArchiveFigures:
    """What a verified archive holds and cost; bytes and seconds."""

    archive: str
    disks: tuple[DiskFigures, ...]
    original: int
    stored: int
    seconds: float
    repository_size: int  # all that the repository holds by now


@dataclass(frozen=True, slots=True)
class Destination:
    """One repository, and how far the archive has come in it."""

    name: str
    repository: Repository | None  # None: its passphrase cannot be had
    created: CreateResult | None = None
    figures: ArchiveFigures | None = None  # of the archive that is there, whole and under its name
    error: VmborgError | None = None  # why the archive is not there; nothing more is tried then

    def failed(self, error: VmborgError) -> "Destination":
        """The same, given up."""
        return replace(self, error=error)


Destinations = tuple[Destination, ...]


@dataclass(frozen=True, slots=True)
class RepositoryResult:
    """What came of the archive in one of the repositories that it goes to. Bytes, and seconds of the create step."""

    repository: str
    stored: int | None = None  # None: it is not there
    seconds: float | None = None
    error: dict[str, str] | None = None  # type, brief, evidence, remedy


class Policy(Protocol):
    """What names repositories: the policy of a VM, or a dump host."""

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository that an archive goes to."""
        ...


def open_all(config: Config, policy: Policy) -> Destinations:
    """Every repository of the policy. Raises ConfigError when none has its passphrase."""
    found: list[Destination] = []
    for name in policy.repositories:
        try:
            found.append(Destination(name, open_repository(config, name)))
        except ConfigError as error:
            found.append(Destination(name, None, error=error))
    require_one(found)
    return tuple(found)


def require_one(destinations: Sequence[Destination]) -> None:
    """Raise the first destination's error when none is left that is good, or may become so."""
    errors = [each.error for each in destinations if each.error is not None]
    if len(errors) == len(destinations):
        raise errors[0]


def step_for(destination: Destination, step: Any, *, first: str) -> Any:
    """A step that is done once for each repository: those for replicas, all but the `first`, are named after them."""
    if destination.name == first:
        return step
    return step.with_options(task_run_name=f"{step.name} {destination.name}")


def repository_result(destination: Destination) -> RepositoryResult:
    """What is told of one repository."""
    if destination.figures is None:
        error = destination.error.facts if destination.error is not None else None
        return RepositoryResult(destination.name, error=error)
    return RepositoryResult(destination.name, destination.figures.stored, destination.figures.seconds)


def seconds_in_borg(destinations: Sequence[Destination]) -> float:
    """Spent by all calls of borg for all of them."""
    return round(sum(each.repository.seconds for each in destinations if each.repository is not None), 3)
