"""The repositories that one archive goes to, and what came of it in each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from infra.borg.client import CreateResult, Repository
from infra.config.models import Config, VmPolicy
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


def open_all(config: Config, policy: VmPolicy) -> Destinations:
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
