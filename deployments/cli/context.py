"""What every verb can ask for: the configuration, the output, the connection to libvirt, the repositories.

Everything is made when it is first used: `vmborg --version` reads no configuration, `vmborg config validate`
opens no connection.
"""

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployments.cli.output import Output

if TYPE_CHECKING:
    from infra.borg.client import Repository
    from infra.config.models import Config
    from infra.hypervisor.connection import Hypervisor
    from infra.model import StateDir


class Context:
    """The state of one call of `vmborg`."""

    def __init__(self) -> None:
        self.config_path: Path | None = None
        self.json = False
        self.verbose = False
        self.verb = ""
        self._closing = ExitStack()

    @cached_property
    def output(self) -> Output:
        """Where to write."""
        return Output(json=self.json)

    @cached_property
    def config(self) -> "Config":
        """The configuration. Raises ConfigError; StorageError when the state folder cannot be made."""
        from infra.config.load import load

        config = load(self.config_path)
        if self.verb != "config":  # which only reads
            from tasks.state_dir import make_state_dir

            make_state_dir(config.state)
        return config

    @property
    def state(self) -> "StateDir":
        """vmborg's own folders."""
        return self.config.state

    def hypervisor(self) -> "Hypervisor":
        """The connection to libvirt, opened once, closed when the verb ends. Raises HypervisorUnreachable."""
        return self._hypervisor

    @cached_property
    def _hypervisor(self) -> "Hypervisor":
        from infra.hypervisor.connection import Hypervisor

        return self._closing.enter_context(Hypervisor.open(self.config.hypervisor.uri))

    def repository(self, name: str) -> "Repository":
        """The repository of this name. Raises UsageError (no such name) and ConfigError (its passphrase)."""
        from tasks.repositories import open_repository

        return open_repository(self.config, name)

    def close(self) -> None:
        """Close what was opened."""
        self._closing.close()


pass_context = click.make_pass_decorator(Context)
