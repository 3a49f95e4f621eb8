"""From a configured repository to one that borg can be asked about."""

import shlex
from pathlib import Path

from infra.borg.client import Repository
from infra.config.models import Config
from infra.config.secrets import resolve
from infra.errors import UsageError
from infra.model import StateDir


def open_repository(config: Config, name: str, *, to_prune: bool = False) -> Repository:
    """The repository of this name in the configuration, with its passphrase read; `to_prune` with the maintainer's key.

    Raises UsageError (no such repository) and ConfigError (the passphrase cannot be read). borg is not started yet.
    """
    settings = config.repositories.get(name)
    if settings is None:
        raise _unknown(config, name)
    return Repository(
        name=name,
        location=settings.location,
        passphrase=resolve(settings.passphrase, what=f"the passphrase of the repository {name!r}")
        if settings.passphrase
        else None,
        encryption=settings.encryption,
        compression=settings.compression,
        base_dir=StateDir(config.state_dir).borg,
        lock_wait=settings.lock_wait,
        remote_path=settings.remote_path,
        rsh=_maintaining(settings.rsh, settings.maintainer_key) if to_prune else settings.rsh,
    )


def _maintaining(rsh: str | None, key: Path | None) -> str | None:
    """The SSH command with the maintainer's key before any other: a server takes the first one that it knows."""
    if key is None:
        return rsh
    program, _, rest = (rsh or "ssh -oBatchMode=yes").partition(" ")
    return f"{program} -oIdentitiesOnly=yes -i {shlex.quote(str(key))} {rest}".rstrip()


def repository_names(config: Config, only: str | None) -> list[str]:
    """Every repository of the configuration, or the one named. Raises UsageError."""
    if only is None:
        return list(config.repositories)
    if only not in config.repositories:
        raise _unknown(config, only)
    return [only]


def _unknown(config: Config, name: str) -> UsageError:
    return UsageError(
        f"There is no repository {name!r} in the configuration.",
        evidence=f"known: {', '.join(sorted(config.repositories)) or 'none'}",
        remedy="Name one of these, or add it under `repositories:`.",
    )
