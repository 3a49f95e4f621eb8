"""What borg's own prune would do, and a repository to ask it about."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from infra.borg.client import Repository
from infra.borg.command import binary, environment
from infra.process import run
from infra.retention.rules import KeepRules
from tests.integration.many import Wanted, fill

LINE = re.compile(r"^(Keeping archive \(rule: (?P<rule>\S+ #\d+)\):|Would prune:) +(?P<name>\S+) ")
COUNTS = {"last": "last", "hourly": "hourly", "daily": "daily", "weekly": "weekly", "monthly": "monthly"}


def repository_in(folder: Path) -> Repository:
    """A new repository without encryption."""
    found = Repository(
        name="main",
        location=str(folder / "repository"),
        passphrase=None,
        encryption="none",
        compression="none",
        base_dir=folder / "state",
        lock_wait=5,
    )
    found.init()
    return found


def borg_says(repository: Repository, glob: str, rules: KeepRules) -> dict[str, str]:
    """What `borg prune --dry-run --list` would do: the rule that keeps each archive, or `pruned`."""
    options = [f"--keep-{name}={getattr(rules, name)}" for name in (*COUNTS, "yearly") if getattr(rules, name)]
    if rules.within is not None:
        options.append(f"--keep-within={int(rules.within.total_seconds() // 3600)}H")
    argv = [binary(), "prune", "--dry-run", "--list", "--glob-archives", glob, *options, repository.location]
    said = run(argv, timeout=120, env=environment(repository.target)).stderr
    found = [match for line in said.splitlines() if (match := LINE.match(line))]
    return {match["name"]: (match["rule"] or "pruned").replace("secondly", "last") for match in found}


def two_years(repository: Repository, now: datetime) -> dict[str, str]:
    """An archive each night of twenty VMs, 14,600 in all; their UUIDs by name."""
    uuids = {f"web-{number}": str(UUID(int=(number + 1) << 96)) for number in range(20)}
    fill(
        repository,
        [
            Wanted(uuid, name, now - timedelta(days=night, minutes=number))
            for number, (name, uuid) in enumerate(uuids.items())
            for night in range(730)
        ],
    )
    return uuids
