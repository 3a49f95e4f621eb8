"""Create what a configuration names and is not there yet: repositories, and copies of their keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.borg.client import Repository
from infra.config.models import Config
from infra.errors import StorageError, VmborgError
from tasks.repositories import open_repository


@dataclass(frozen=True, slots=True)
class Initialised:
    """What became of one repository."""

    repository: str
    location: str
    created: bool = False  # False: it existed already
    key: Path | None = None  # where its key was exported to; None for one without encryption
    error: VmborgError | None = None


def initialise(config: Config) -> Iterator[Initialised]:
    """Each repository in turn; one that fails does not keep the others from being made. Safe to repeat."""
    for name, settings in config.repositories.items():
        try:
            repository = open_repository(config, name)
            created = not repository.exists()
            if created:
                repository.init()
            encrypted = settings.encryption != "none"
            key = export_key(repository, name, config.state.keys / f"{name}.key") if encrypted else None
            yield Initialised(name, settings.location, created=created, key=key)
        except VmborgError as error:
            yield Initialised(name, settings.location, error=error)


def export_key(repository: Repository, name: str, path: Path) -> Path:
    """Export the repository's key to a file for root alone, in place of an earlier one only when it is whole."""
    unfinished = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        repository.key_export(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(
            f"The key of repository {name!r} cannot be written to {path}.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Run as root, and look whether the file system has space.",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
