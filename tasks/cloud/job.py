"""What a copy is made of: configuration, repository, remote, and what this host remembers of the last one."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.borg.client import Repository
from infra.config.cloud import CloudConfig
from infra.config.models import Config
from infra.config.secrets import file_problem
from infra.errors import ConfigError, UsageError
from infra.errors_upkeep import CheckStale, ClockSkewed, SourceUnfit
from infra.journal.facts import read_facts, write_facts
from infra.rclone.client import RemoteFolder
from infra.rclone.command import Place
from tasks.checking.run import last_check
from tasks.cloud.layout import moment_of, stamp_of
from tasks.cloud.sanity import Explained, unfit
from tasks.repositories import open_repository
from tasks.upkeep import facts_of, stamp

_CLOCK_TOLERANCE_S = 300


@dataclass(frozen=True)
class CloudJob:
    """One copy in the making."""

    config: Config
    name: str
    settings: CloudConfig
    repository: Repository
    remote: RemoteFolder
    now: datetime

    @property
    def folder(self) -> Path:
        """Where the repository is."""
        return Path(self.repository.location)

    @property
    def stamp(self) -> str:
        """The name of the generation that is made."""
        return stamp_of(self.now)

    @property
    def facts(self) -> Path:
        """What this host remembers of this copy."""
        return self.config.state.upkeep / "cloud" / f"{self.name}.json"

    def remembered(self) -> dict[str, Any]:
        """The facts of the last copy that ended well; empty when there was none. Raises JournalError."""
        return read_facts(self.facts)

    def explained(self) -> Explained:
        """What prunes have freed since the last copy. Raises JournalError."""
        total, then = facts_of(self.config.state, self.settings.repository), self.remembered()
        return Explained(
            size=max(total.get("freed_bytes", 0) - then.get("freed_bytes", 0), 0),
            segments=max(total.get("freed_segments", 0) - then.get("freed_segments", 0), 0),
        )

    def remember(self, repository_id: str) -> None:
        """This copy ended well. Raises JournalError."""
        total = facts_of(self.config.state, self.settings.repository)
        write_facts(
            self.facts,
            {
                "stamp": self.stamp,
                "repository": repository_id,
                "freed_bytes": total.get("freed_bytes", 0),
                "freed_segments": total.get("freed_segments", 0),
            },
        )


def cloud_names(config: Config, only: str | None) -> list[str]:
    """Every copy of the configuration, or the one named. Raises UsageError."""
    if only is None and config.cloud:
        return list(config.cloud)
    if only is None or only not in config.cloud:
        raise UsageError(
            f"There is no copy {only!r} in the configuration." if only else "The configuration has no copy to make.",
            evidence=f"known: {', '.join(config.cloud) or 'none'}",
            remedy="Name one of these, or add it under `cloud:`.",
        )
    return [only]


def open_job(config: Config, name: str, now: datetime) -> CloudJob:
    """Everything that a copy needs. Raises ConfigError, when rclone.conf is missing or open to others too."""
    settings = config.cloud[name]
    _require_private(settings.config)
    place = Place(settings.config, settings.remote, settings.bandwidth, settings.transfers, settings.stall)
    repository = open_repository(config, settings.repository)
    return CloudJob(config, name, settings, repository, RemoteFolder(place), now)


def _require_private(path: Path) -> None:
    try:
        problem = file_problem(path)
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise ConfigError(
            "rclone's configuration cannot be used.",
            evidence=f"{path}: {problem}",
            remedy=f"It holds the keys of the remote: write it with `rclone config`, then chmod 0600 {path}.",
        )


def require_local(job: CloudJob) -> None:
    """Raise SourceUnfit unless the repository is a folder of this host with a repository in it."""
    place = job.repository.location
    if not place.startswith("/"):
        raise SourceUnfit(
            f"The repository {place} is not on this host.",
            evidence="rclone reads the repository's files",
            remedy="Copy it from the host where it is.",
        )
    if not job.folder.is_dir():
        raise unfit(place, "there is no such folder")
    if not any(job.folder.iterdir()):
        raise unfit(place, "the folder is empty: its disk is not mounted")
    if not (job.folder / "config").is_file():
        raise unfit(place, "its file `config` is missing")


def require_fresh_check(job: CloudJob) -> None:
    """Raise CheckStale unless the repository was found sound, not longer ago than `check_age`."""
    name = job.settings.repository
    verdict = last_check(job.config, name)
    age = job.now - verdict.when if verdict.when else None
    if verdict.when is not None and not verdict.good:
        why = f"the check of {stamp(verdict.when)} found damage: {verdict.said}"
    elif age is None:
        why = "it was never checked on this host"
    elif age > job.settings.check_age:
        why = f"the last good check is of {stamp(job.now - age)}, older than check_age"
    elif age.total_seconds() < -_CLOCK_TOLERANCE_S:
        why = f"the last check is of the future: {stamp(job.now - age)}"
    else:
        return
    raise CheckStale(
        f"The repository {name!r} is not copied without a fresh, good check.",
        evidence=why,
        remedy=f"vmborg check --repository {name}",
    )


def require_clock(job: CloudJob, stamps: list[str]) -> None:
    """Raise ClockSkewed when the remote holds a generation that is not older than ours would be."""
    newest = max((stamp for stamp in stamps if moment_of(stamp)), default="")
    if newest >= job.stamp:
        raise ClockSkewed(
            "The last copy on the remote is of the future.",
            evidence=f"there: {newest}\nhere: {job.stamp}",
            remedy="Set this host's clock (timedatectl), or that of the host that made the other copy.",
        )
