"""Which archives of dumps there are, as their names and comments tell. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.borg.answers import ArchiveInfo
from infra.borg.names import parse_archive_name

DUMP = "dump"


@dataclass(frozen=True, slots=True)
class DumpArchive:
    """One archive of a host's dumps. Sizes in bytes; what the comment does not tell is empty."""

    repository: str
    archive: str
    host: str
    time: datetime
    finished: bool  # False: its run ended before what borg stored was verified; never good
    sources: tuple[tuple[str, int], ...] = ()  # label and number of dumps
    size: int = 0
    bad: tuple[str, ...] = ()  # sources of which something is missing or stale
    hypervisor: str = ""
    vm: str = ""  # the VM whose backup it preceded


def dump_archives(repository: str, found: Iterable[ArchiveInfo]) -> list[DumpArchive]:
    """The archives of dumps among all of a repository."""
    archives: list[DumpArchive] = []
    for info in found:
        name = parse_archive_name(info.name)
        if name is None or name.kind != DUMP:
            continue
        comment = info.comment
        archives.append(
            DumpArchive(
                repository=repository,
                archive=info.name,
                host=name.source,
                time=name.when.astimezone(UTC),
                finished=name.finished,
                sources=_sources(comment.get("sources", "")),
                size=int(size) if (size := comment.get("size", "")).isdecimal() and size.isascii() else 0,
                bad=tuple(label for label in comment.get("bad", "").split(",") if label),
                hypervisor=comment.get("host", ""),
                vm=comment.get("vm", ""),
            )
        )
    return archives


def _sources(text: str) -> tuple[tuple[str, int], ...]:
    parts = (part.rpartition(":") for part in text.split(","))
    return tuple((label, int(count)) for label, _, count in parts if label and count.isascii() and count.isdecimal())
