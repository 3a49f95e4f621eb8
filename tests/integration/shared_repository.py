"""A repository that several hypervisors share, with any archives and at any date."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.config.load import load
from infra.config.models import Config
from infra.retention.retired import Sight
from tasks.repositories import open_repository
from tasks.retention.model import Pruned
from tasks.retention.outlook import View
from tasks.retention.run import prune_repository
from tests.integration.many import Wanted, fill

WEB, WEB2, DB = (f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2, 3))
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass(slots=True)
class Site:
    """A repository that several hypervisors share."""

    root: Path

    def config(self, host: str = "kvm1", **repository: Any) -> Config:
        """The configuration of one hypervisor."""
        return load(self.write(host, **repository))

    def write(self, host: str = "kvm1", **repository: Any) -> Path:
        """Write it; its path. The libvirt that it names does not exist."""
        settings = {
            "state_dir": str(self.root / f"state-{host}"),
            "hypervisor": {"name": host, "uri": "qemu+unix:///system?socket=/nonexistent"},
            "repositories": {"main": {"location": str(self.root / "repository"), "encryption": "none"} | repository},
            "vms": {"defaults": {"retention": {"daily": 3}}},
        }
        path = self.root / f"{host}.yaml"
        path.write_text(json.dumps(settings))
        return path

    def names(self) -> list[str]:
        """Every archive that is a backup's."""
        found = open_repository(self.config(), "main").archives()
        return [each.name for each in found if each.name.startswith("vm.")]

    def marks(self) -> list[str]:
        """Every mark, by its kind."""
        found = open_repository(self.config(), "main").archives()
        return [each.name.split(".")[0] for each in found if not each.name.startswith("vm.")]

    def fill(self, *wanted: Wanted) -> list[str]:
        """Make archives."""
        return fill(open_repository(self.config(), "main"), wanted)

    def prune(
        self,
        host: str = "kvm1",
        *,
        present: Collection[str] | None = (WEB, WEB2, DB),
        now: datetime = NOW,
        dry_run: bool = False,
        **repository: Any,
    ) -> Pruned:
        """Prune as this hypervisor, at that moment, with these VMs in its libvirt (None: it does not answer)."""
        view = View(Sight(host, None if present is None else frozenset(present)), {}, now)
        return prune_repository(self.config(host, **repository), "main", view, dry_run=dry_run)


def empty_site(root: Path) -> Site:
    """One whose repository is new."""
    made = Site(root)
    open_repository(made.config(), "main").init()
    return made


def nights(uuid: str, vm: str, count: int, *, until: datetime = NOW, **facts: Any) -> list[Wanted]:
    """An archive each night, newest first."""
    return [Wanted(uuid, vm, until - DAY * index, **facts) for index in range(count)]
