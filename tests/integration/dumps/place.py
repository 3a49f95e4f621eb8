"""One installation of vmborg that pulls from the tests' SSH server."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.borg.client import Repository
from infra.config.load import load
from infra.dumps.manifest import DumpManifest, read
from tasks.dumps.trust import pin, shown_keys
from tasks.job import load_config
from tasks.repositories import open_repository
from tests.integration.dumps.servers import Sshd
from tests.integration.vmborg import Call, vmborg

SECRET = "a passphrase of the dump tests"


@dataclass(slots=True)
class Place:
    """Configuration, state and repository below `root`."""

    root: Path
    ssh: Sshd
    api: str = ""  # of a Prefect server; "": each command starts one of its own, which takes seconds
    host: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, ssh: Sshd, *, api: str = "") -> "Place":
        """Configure, and trust the server."""
        place = cls(root, ssh, api)
        (root / "secret").touch(mode=0o600)
        (root / "secret").write_text(SECRET)
        place.configure([{"kind": "command", "command": "echo nothing"}])
        for shown in shown_keys(load_config(str(place.config)), "db"):
            pin(shown)
        return place

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "vmborg.yaml"

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.root / "state"

    @property
    def latest(self) -> Path:
        """The newest tree of the host db."""
        return self.state / "dumps" / "db" / "latest" / "dumps"

    @property
    def repository(self) -> Repository:
        """The repository main."""
        return open_repository(load(self.config), "main")

    def configure(self, sources: Sequence[dict[str, Any]], **host: Any) -> None:
        """Write the configuration with one dump host, `db`."""
        self.host = {
            "address": "127.0.0.1",
            "port": self.ssh.port,
            "user": "root",
            "key": str(self.ssh.client_key),
            "connect_timeout": "10s",
            "stall_timeout": "20s",
            "sources": list(sources),
            **host,
        }
        self.write({"db": self.host})

    def write(self, hosts: dict[str, Any], **settings: Any) -> None:
        """Write the configuration with these hosts. JSON is YAML."""
        secret = {"file": str(self.root / "secret")}
        repository = {"location": str(self.root / "repository"), "passphrase": secret, "lock_wait": 5}
        whole = {
            "state_dir": str(self.state),
            "hypervisor": {"name": "testhost"},
            "repositories": {"main": repository},
            "dumps": {"hosts": hosts},
            **settings,
        }
        self.config.write_text(json.dumps(whole))

    def run(self, *arguments: str | Path, timeout: float = 180, env: dict[str, str] | None = None) -> Call:
        """Run the command; the repository's secret must not appear in what it says."""
        server = {"PREFECT_API_URL": self.api} if self.api else {}
        call = vmborg(*arguments, config=self.config, timeout=timeout, env=server | (env or {}))
        assert SECRET not in call.stdout + call.stderr
        return call

    def initialise(self) -> None:
        """Make the repository unless it is there."""
        if not (self.root / "repository").exists():
            self.repository.init()

    def pull(self, *options: str, expect: int = 0, timeout: float = 180) -> dict[str, Any]:
        """Pull the host into the repository, which is made if it is missing; return its entry of the document."""
        self.initialise()
        call = self.run("--json", "dumps", "pull", "db", *options, timeout=timeout)
        assert call.code == expect, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
        entry: dict[str, Any] = call.document["pulls"][0]
        return entry

    def manifest(self) -> DumpManifest:
        """What the newest tree says of itself."""
        found = read(self.latest)
        assert found is not None
        return found

    def archives(self) -> list[str]:
        """Every archive of the repository, finished or not."""
        return [archive.name for archive in self.repository.archives()]

    def stored(self, archive: str) -> DumpManifest:
        """What an archive says of itself."""
        text = self.repository.extract_stdout(archive, "dumps/manifest.json")
        return DumpManifest.model_validate_json(text)
