"""A repository, a cloud and a configuration for tests of copies."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.borg.client import Repository
from infra.config.load import load
from infra.rclone.command import Transfer
from tasks.checking.run import check_storage
from tasks.cloud.copy import Copied, make_copy
from tasks.cloud.fetch import fetch_copy
from tasks.cloud.job import open_job
from tasks.repositories import open_repository
from tasks.upkeep import remember, stamp
from tests.integration.borg.conftest import content
from tests.integration.cloud.servers import Cloud

MIB = 1024**2
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
VM = "vm.00000001.web@2026-11-{:02d}T03:00:00Z"


@dataclass(slots=True)
class Site:
    """A repository of small segments, a cloud, and a clock."""

    root: Path
    cloud: Cloud
    remote: str = "s3:bucket/vmborg"
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The repository's folder."""
        return self.root / "repository"

    @property
    def repository(self) -> Repository:
        """The repository."""
        return open_repository(load(self.path), "main")

    @property
    def path(self) -> Path:
        """The configuration, written anew each time."""
        secret = self.root / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("a secret\n")
        path = self.root / "vmborg.yaml"
        settings = {
            "state_dir": str(self.root / "state"),
            "hypervisor": {"name": "kvm1"},
            "repositories": {"main": {"location": str(self.folder), "passphrase": {"file": str(secret)}}},
            "vms": {"defaults": {"retention": {"last": 1}}},
            "cloud": {"offsite": {"remote": self.remote, "config": str(self.cloud.config), **self.limits}},
        }
        path.write_text(json.dumps(settings))
        return path

    def make(self) -> None:
        """Create the repository, with segments of 1 MiB as a large one has many."""
        self.repository.init()
        config = self.folder / "config"
        config.write_text(config.read_text().replace("max_segment_size = 524288000", "max_segment_size = 1048576"))

    def back_up(self, day: int, size: int = 6 * MIB) -> None:
        """An archive with data of its own."""
        source = content(self.root / "content", size=size, seed=day)
        self.repository.create(VM.format(day), [str(source)], comment="", files_cache_suffix="x")

    def check(self, now: datetime = NOW) -> None:
        """A good check."""
        check_storage(load(self.path), "main", verify_data=False, now=now, on_progress=lambda _: None)

    def copy(self, now: datetime = NOW, *, start_over: bool = False, allow_shrink: bool = False) -> Copied:
        """Make the copy, at that moment, after a check that was good."""
        remember(load(self.path).state, "main", checked=stamp(now), check_good=True)
        return self.bare_copy(now, start_over=start_over, allow_shrink=allow_shrink)

    def bare_copy(self, now: datetime = NOW, *, start_over: bool = False, allow_shrink: bool = False) -> Copied:
        """Make the copy, whatever the last check was."""
        job = open_job(load(self.path), "offsite", now)
        return make_copy(job, start_over=start_over, allow_shrink=allow_shrink, teller=silent)

    def fetch(self, name: str, at: datetime | None = None) -> list[str]:
        """Fetch a copy into a new folder; the archives in it."""
        directory = self.root / name
        fetch_copy(load(self.path), "offsite", directory, at=at, now=NOW, teller=silent)
        fetched = Repository(
            name="main",
            location=str(directory),
            passphrase="a secret",
            encryption="repokey",
            compression="lz4",
            base_dir=self.root / f"state-{name}",
            lock_wait=1,
        )
        return [each.name for each in fetched.archives()]


def silent(_phase: str) -> Any:
    """Nobody is told."""

    def tell(transfer: Transfer) -> None:
        assert transfer.done >= 0

    return tell
