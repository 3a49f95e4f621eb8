"""Create what a configuration names and is not there yet: the state folder, the repositories, copies of their keys."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.borg.client import Repository
from infra.config.models import Config
from infra.errors import StorageError, VmborgError
from infra.model import StateDir
from tasks.repositories import open_repository


@dataclass(frozen=True, slots=True)
class Initialised:
    """What became of one repository."""

    repository: str
    location: str
    created: bool = False  # False: it existed already
    key: Path | None = None  # where its key was exported to; None for one without encryption
    error: VmborgError | None = None


def make_state_dir(state: StateDir) -> bool:
    """Create the folder for root alone; whether it was missing. One that exists keeps its mode: doctor looks at it.

    Raises StorageError.
    """
    try:
        if state.root.is_dir():
            return False
        state.root.mkdir(mode=0o700, parents=True)
        state.root.chmod(0o700)  # whatever the umask made of it
    except OSError as error:
        raise StorageError(
            f"The folder {state.root} cannot be created.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Run as root, or correct state_dir in the configuration.",
        ) from error
    return True


def initialise(config: Config) -> Iterator[Initialised]:
    """Each repository in turn; one that fails does not keep the others from being made. Safe to repeat."""
    for name, settings in config.repositories.items():
        try:
            repository = open_repository(config, name)
            created = not repository.exists()
            if created:
                repository.init()
            encrypted = settings.encryption != "none"
            key = export_key(repository, config.state.keys / f"{name}.key") if encrypted else None
            yield Initialised(name, settings.location, created=created, key=key)
        except VmborgError as error:
            yield Initialised(name, settings.location, error=error)


def export_key(repository: Repository, path: Path) -> Path:
    """Export the repository's key to a file for root alone, in place of an earlier one only when it is whole."""
    unfinished = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        # borg opens it with the mode that the umask leaves: it must exist with the right one before.
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        repository.key_export(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(
            f"The key of repository {repository.name!r} cannot be written to {path}.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Run as root, and look whether the file system has space.",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
