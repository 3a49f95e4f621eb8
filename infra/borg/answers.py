"""What borg's answers are read into."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from infra.borg.command import Finished
from infra.borg.comment import parse_comment
from infra.borg.messages import ArchiveProgress, FileStatus, Message
from infra.errors import ArchiveIncomplete, RepositoryInvalid

_BAD_STATUS = {"C", "E"}


@dataclass(frozen=True, slots=True)
class RepositoryInfo:
    """What `borg info` tells of a repository."""

    id: str
    location: str
    encryption: str
    modified: datetime
    stored: int  # bytes of compressed, deduplicated data


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """An archive in the list of a repository."""

    name: str
    time: datetime
    comment: dict[str, str]
    seconds: float = 0.0  # from the beginning of its create to the end


@dataclass(frozen=True, slots=True)
class ArchiveItem:
    """A file or directory of an archive: borg's type letter, and bytes."""

    path: str
    type: str  # "-" file, "d" directory, "l" link, ...
    size: int
    unique: int | None = None  # compressed bytes of blocks that nothing else in the repository has, if asked for


@dataclass(frozen=True, slots=True)
class CreateResult:
    """What a create did. Bytes and seconds."""

    original_size: int
    deduplicated_size: int  # new in the repository
    seconds: float
    read_bytes: int  # read by borg's process in all, its caches among it
    repository_size: int = 0  # all that the repository holds by now, deduplicated and compressed; 0: not told
    stopped: bool = False
    files: dict[str, str] = field(default_factory=dict[str, str])  # path given to borg: its status letter


class CreateWatch:
    """Follows a create: its progress, and the status of each path."""

    def __init__(self, on_progress: Callable[[ArchiveProgress], None] | None) -> None:
        self._on_progress = on_progress
        self.files: dict[str, str] = {}

    def __call__(self, message: Message) -> None:
        """Take the next message."""
        if isinstance(message, ArchiveProgress):
            if self._on_progress is not None and not message.finished:
                self._on_progress(message)
        elif isinstance(message, FileStatus):
            self.files[message.path] = message.status

    def require_clean(self) -> None:
        """Raise ArchiveIncomplete if a file changed while it was read, or could not be read."""
        bad = {path: status for path, status in self.files.items() if status in _BAD_STATUS}
        if bad:
            raise ArchiveIncomplete(
                "borg could not read everything; that archive is not kept.",
                evidence="\n".join(f"{status} {path}" for path, status in bad.items()),
                remedy="Look at these files and the storage below them, then back up again.",
            )


def create_result(done: Finished, watch: CreateWatch) -> CreateResult:
    """Read what `borg create --json` printed. Raises ArchiveIncomplete as `watch` tells."""
    watch.require_clean()
    said: dict[str, Any] = json.loads(done.stdout)
    stats = said["archive"]["stats"]
    return CreateResult(
        original_size=stats["original_size"],
        deduplicated_size=stats["deduplicated_size"],
        seconds=done.seconds,
        read_bytes=done.read_bytes,
        repository_size=said["cache"]["stats"]["unique_csize"],
        files=watch.files,
    )


def repository_info(document: dict[str, Any]) -> RepositoryInfo:
    """Read what `borg info --json` prints."""
    return RepositoryInfo(
        id=document["repository"]["id"],
        location=document["repository"]["location"],
        encryption=document["encryption"]["mode"],
        modified=_time(document["repository"]["last_modified"]),
        stored=document["cache"]["stats"]["unique_csize"],
    )


ARCHIVE_KEYS = "{archive}{time}{end}{comment}"
"""What `archive_infos` reads, as `borg list --json --format` is asked for it; all of it is read with the comment."""


def archive_infos(document: dict[str, Any]) -> list[ArchiveInfo]:
    """Read what `borg list --json` prints."""
    return [_archive_info(each) for each in document["archives"]]


def _archive_info(found: dict[str, Any]) -> ArchiveInfo:
    begun, ended = _time(found["time"]), _time(found["end"])
    return ArchiveInfo(found["archive"], begun, parse_comment(found["comment"]), (ended - begun).total_seconds())


def _time(text: str) -> datetime:
    """borg's times have no zone; its process runs in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def require_mode(document: dict[str, Any], location: str, encryption: str) -> None:
    """Raise RepositoryInvalid if a repository is encrypted and should not be, or the other way round. Pure."""
    mode: str = document["encryption"]["mode"]
    if (mode == "none") != (encryption == "none"):
        raise RepositoryInvalid(
            f"The repository {location} is not encrypted as the configuration says.",
            evidence=f"borg: encryption mode {mode}; the configuration: encryption {encryption}",
            remedy="The mode is fixed when a repository is created: correct `encryption`, or name a new location "
            "and run `vmborg init`.",
        )
