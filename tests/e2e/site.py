"""One host's vmborg for a test: configuration, repository, state, and the command."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.borg.client import Repository
from infra.config.load import load
from infra.journal.store import Journal
from tasks.repositories import open_repository
from tests.integration.vmborg import Call, vmborg

PASSPHRASE = "a secret of the test suite"


@dataclass(frozen=True, slots=True)
class Site:
    """Everything of one installation, below one directory."""

    root: Path
    uri: str
    api: str = ""  # PREFECT_API_URL; without one each command has a Prefect server of its own
    env: Mapping[str, str] = field(default_factory=dict[str, str])  # more that every command gets

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "vmborg.yaml"

    @property
    def repository_path(self) -> Path:
        """Where the repository main is."""
        return self.root / "repository"

    @property
    def journal(self) -> Journal:
        """The open runs."""
        return Journal(self.root / "state" / "journal")

    @property
    def repository(self) -> Repository:
        """The repository main."""
        return open_repository(load(self.config), "main")

    def configure(self, *, overrides: Mapping[str, Mapping[str, Any]] | None = None, **policy: Any) -> None:
        """Write the configuration; `policy` are keys of vms.defaults, `overrides` is vms.overrides. JSON is YAML."""
        secret = self.root / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text(PASSPHRASE + "\n", encoding="utf-8")
        settings = {
            "state_dir": str(self.root / "state"),
            "hypervisor": {"name": "testhost", "uri": self.uri},
            "repositories": {
                "main": {
                    "location": str(self.repository_path),
                    "passphrase": {"file": str(secret)},
                    "compression": "lz4",
                    "lock_wait": 5,
                }
            },
            "vms": {
                "parallel": 4,  # a run that was killed holds its slot of the deployment for some minutes
                "defaults": {"repository": "main", "min_free": "64MiB", "min_free_start": "128MiB", **policy},
                "overrides": {name: dict(policy) for name, policy in (overrides or {}).items()},
            },
        }
        self.config.write_text(json.dumps(settings), encoding="utf-8")

    def vmborg(self, *arguments: str | Path, timeout: float = 300, env: Mapping[str, str] | None = None) -> Call:
        """Run the command."""
        server = {"PREFECT_API_URL": self.api} if self.api else {}
        return vmborg(*arguments, config=self.config, timeout=timeout, env={**server, **self.env, **(env or {})})

    def ok(self, *arguments: str | Path, timeout: float = 300) -> Any:
        """Run the command with --json; it must succeed. Returns the document."""
        call = self.vmborg("--json", *arguments, timeout=timeout)
        assert call.code == 0, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
        return call.document

    def backup(self, vm: str) -> dict[str, Any]:
        """Back up one VM; it must succeed. Returns its result."""
        result: dict[str, Any] = self.ok("backup", "--", vm)["backups"][0]["result"]
        return result


def make_site(root: Path, uri: str, *, api: str = "", **policy: Any) -> Site:
    """Configure and initialise a site below `root`."""
    site = Site(root, uri, api)
    root.mkdir(parents=True, exist_ok=True)
    site.configure(**policy)
    site.ok("init")
    return site
