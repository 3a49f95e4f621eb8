"""A host for tests of the command: a libvirtd of its own, a configuration, repositories, domains that never boot."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from infra.borg.client import Repository
from infra.borg.comment import render_comment
from infra.borg.names import archive_name, unfinished
from infra.config.load import load
from infra.hypervisor.connection import Domain, Hypervisor
from tasks.repositories import open_repository
from tests.guests import DiskSpec, make_disk
from tests.integration.bare import domain_xml
from tests.integration.vmborg import Call, vmborg

PASSPHRASE = "correct horse battery staple"
MIB = 1024**2


@dataclass(slots=True)
class Host:
    """One configured host below `root`; disk images are below `images`."""

    root: Path
    images: Path
    uri: str
    settings: dict[str, Any] = field(default_factory=dict)
    api: str = ""  # PREFECT_API_URL; without one each command that runs a flow starts a Prefect server of its own

    def __post_init__(self) -> None:
        self.secret.touch(mode=0o600)
        self.secret.write_text(PASSPHRASE + "\n")
        self.settings = {
            "state_dir": str(self.state),
            "hypervisor": {"name": "kvm1", "uri": self.uri},
            "repositories": {"main": self.repository_settings("main")},
            "vms": {"defaults": {"quiesce": "never"}, "exclude": ["scratch-*"]},
        }
        self.configure()

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "vmborg.yaml"

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.root / "state"

    @property
    def secret(self) -> Path:
        """The file of the passphrase."""
        return self.root / "passphrase"

    def repository_settings(self, name: str) -> dict[str, Any]:
        """The settings of a repository below `root`."""
        return {
            "location": str(self.root / "repositories" / name),
            "passphrase": {"file": str(self.secret)},
            "lock_wait": 2,
        }

    def configure(self, **sections: Any) -> None:
        """Write the configuration with these sections replaced. JSON is YAML."""
        self.settings |= sections
        self.config.write_text(json.dumps(self.settings))

    def repository(self, name: str = "main") -> Repository:
        """A repository of the configuration."""
        return open_repository(load(self.config), name)

    def run(self, *arguments: str | Path) -> Call:
        """Run the command; the secret must not appear in what it says."""
        server = {"PREFECT_API_URL": self.api} if self.api else {}
        call = vmborg(*arguments, config=self.config, timeout=120, env=server)
        assert PASSPHRASE not in call.stdout + call.stderr
        return call

    def archive(self, domain: Domain, when: datetime, *, finished: bool = True, **facts: str) -> str:
        """Store a small archive with a backup's name and comment; `facts` are added to the comment."""
        content = self.root / "content"
        content.write_text(str(when))
        name = archive_name(domain.uuid, domain.name, when)
        name = name if finished else unfinished(name)
        comment = {
            "v": "1",
            "vm": domain.name,
            "uuid": domain.uuid,
            "host": "kvm1",
            "consistency": "crash",
            "frozen_ms": "0",
            "disks": f"vda:{16 * MIB}",
            "uncovered": "",
            **facts,
        }
        self.repository().create(name, [str(content)], comment=render_comment(comment), files_cache_suffix="x")
        return name


@contextmanager
def defined(hypervisor: Hypervisor, name: str, disks: Sequence[DiskSpec]) -> Iterator[Domain]:
    """A shut-off domain for the length of the block."""
    domain = hypervisor.define(domain_xml(name, str(uuid4()), disks))
    try:
        yield domain
    finally:
        if domain.live_xml():
            domain.destroy()
        domain.undefine()


def disk(folder: Path, target: str = "vda", **options: Any) -> DiskSpec:
    """A small empty disk in `folder`."""
    return DiskSpec(target, make_disk(folder / f"{uuid4().hex[:8]}.qcow2", size=16 * MIB, formatted=False), **options)
