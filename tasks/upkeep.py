"""What prunes, checks and copies of a repository remember on this host: one file of facts a repository."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.journal.facts import read_facts, write_facts
from infra.model import StateDir

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def facts_of(state: StateDir, repository: str) -> dict[str, Any]:
    """Everything that is remembered of a repository. Raises JournalError."""
    return read_facts(_path(state, repository))


def remember(state: StateDir, repository: str, **facts: Any) -> None:
    """Add facts, or replace those of the same name. Raises JournalError."""
    write_facts(_path(state, repository), facts_of(state, repository) | facts)


def count_freed(state: StateDir, repository: str, *, freed: int, segments: int) -> None:
    """Add up what prunes freed: it explains to a cloud copy why the repository has become smaller. Bytes."""
    facts = facts_of(state, repository)
    total = facts.get("freed_bytes", 0) + max(freed, 0)
    remember(state, repository, freed_bytes=total, freed_segments=facts.get("freed_segments", 0) + segments)


def segment_names(location: str) -> set[str]:
    """The segment files of a repository on this host; none for one elsewhere."""
    if not location.startswith("/"):
        return set()
    return {name for name in file_sizes(Path(location)) if name.startswith("data/")}


def file_sizes(folder: Path) -> dict[str, int]:
    """Every file below a folder with its size in bytes; a file that goes away meanwhile is passed over."""
    found: dict[str, int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                found[path.relative_to(folder).as_posix()] = path.lstat().st_size
    return found


def stamp(when: datetime) -> str:
    """A moment as it is remembered."""
    return when.astimezone(UTC).strftime(_TIME)


def moment(text: object) -> datetime | None:
    """A moment that was remembered; None for what is none."""
    try:
        return datetime.strptime(str(text), _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _path(state: StateDir, repository: str) -> Path:
    return state.upkeep / f"{repository}.json"
