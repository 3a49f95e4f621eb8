"""Whether a repository may be copied over what is on the remote, judged before anything is touched there. Pure.

Of a repository its last committed transaction is copied: the segments up to the number that `index.N` bears, and the
files beside `data/` (borg docs: internals/data-structures, Repository). Later segments belong to nobody yet; borg
reuses their numbers after a crash.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.errors_upkeep import RemoteGone, SourceSwapped, SourceUnfit

DATA = "data/"
_INDEX = "index."
_LOCKS = ("lock.exclusive", "lock.roster")


@dataclass(frozen=True, slots=True)
class Source:
    """The committed part of a local repository: names relative to it, sizes in bytes."""

    id: str
    segments: Mapping[str, int]
    others: Mapping[str, int]
    uncommitted: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, int]:
        """Everything that is copied."""
        return {**self.segments, **self.others}

    @property
    def size(self) -> int:
        """Bytes of its segments."""
        return sum(self.segments.values())


@dataclass(frozen=True, slots=True)
class Explained:
    """What prunes on this host have freed since the last copy: bytes and segments."""

    size: int = 0
    segments: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a copy would do. Names as they are in the repository."""

    new: Mapping[str, int] = field(default_factory=dict[str, int])  # segments that the remote does not have
    common: tuple[str, ...] = ()  # segments that both have
    gone: tuple[str, ...] = ()  # segments that would be deleted there
    other_size: int = 0  # bytes of the files beside the segments, which are copied each time

    @property
    def size(self) -> int:
        """Bytes to copy."""
        return sum(self.new.values()) + self.other_size


def read_source(files: Mapping[str, int], config_text: str, place: str) -> Source:
    """Sort a repository's files. Raises SourceUnfit for what is no repository with data in it."""
    identity = repository_id(config_text)
    if not identity:
        raise unfit(place, "its file `config` is missing or names no repository")
    transactions = [int(name.removeprefix(_INDEX)) for name in files if _is_numbered(name, _INDEX)]
    if not transactions:
        raise unfit(place, "it has no index file: nothing was ever committed, or it is lost")
    last = max(transactions)
    segments = {name: size for name, size in files.items() if name.startswith(DATA) and _number(name) <= last}
    if not segments:
        raise unfit(place, "it has no segments below data/")
    others = {name: size for name, size in files.items() if not name.startswith((DATA, *_LOCKS))}
    uncommitted = tuple(name for name in files if name.startswith(DATA) and name not in segments)
    return Source(identity, segments, others, uncommitted)


def repository_id(config_text: str) -> str:
    """borg's id of a repository, from its file `config`; "" for what is none."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(config_text)
        return parser.get("repository", "id", fallback="").strip()
    except configparser.Error:
        return ""


def unfit(place: str, evidence: str) -> SourceUnfit:
    """The error of a repository that is not what should be copied."""
    return SourceUnfit(
        f"The repository {place} is not copied: it is not what it was.",
        evidence=evidence,
        remedy="Is its disk mounted, and is `location` right? If segments are missing, treat it as damage "
        "(docs/retention.md). The copy on the remote is as it was: `vmborg sync restore` fetches it.",
    )


def require_same(source: Source, remote_config: str, *, place: str, remote: str) -> None:
    """Raise SourceSwapped unless the copy is of this repository."""
    there = repository_id(remote_config)
    if there != source.id:
        raise SourceSwapped(
            f"{remote} holds a copy of another repository than {place}.",
            evidence=f"here: {source.id}\nthere: {there or '(its config names none)'}",
            remedy="Correct `location` or `remote`. A new repository needs a folder of its own on the remote.",
        )


def plan_copy(
    source: Source, there: Mapping[str, int], explained: Explained, *, max_delete: int, max_shrink: int, place: str
) -> Plan:
    """What a copy would do. `there`: the files of the copy. The limits are percent.

    Raises SourceUnfit when more would be deleted, or the repository is smaller, than prune explains.
    """
    old = {name: size for name, size in there.items() if name.startswith(DATA)}
    gone = tuple(sorted(name for name in old if name not in source.segments))
    ceiling = explained.segments + len(old) * max_delete // 100
    if len(gone) > ceiling:
        raise unfit(
            place,
            f"{len(gone)} of the copy's {len(old)} segments would be deleted; at most {ceiling} may be "
            f"({explained.segments} freed by prune here, and max_delete {max_delete} %)",
        )
    size = sum(old.values())
    floor = size - explained.size - size * max_shrink // 100
    if source.size < floor:
        raise unfit(
            place,
            f"it has {source.size} bytes, the copy {size}; at least {floor} are expected "
            f"({explained.size} freed by prune here, and max_shrink {max_shrink} %)",
        )
    return Plan(
        new={name: size for name, size in source.segments.items() if name not in old},
        common=tuple(sorted(name for name in source.segments if name in old)),
        gone=gone,
        other_size=sum(source.others.values()),
    )


def resized(source: Source, there: Mapping[str, int], common: tuple[str, ...]) -> list[str]:
    """Segments whose size is not that of the copy: their content cannot be the same."""
    return [name for name in common if source.segments[name] != there[name]]


def require_known(there: Mapping[str, int], *, remembered: str, remote: str) -> None:
    """Raise RemoteGone when a copy was made before and nothing is there, or its `config` is not."""
    if "config" in there or (not there and not remembered):
        return
    what = f"it has {len(there)} files and no `config`" if there else f"it is empty; the last copy was {remembered}"
    raise RemoteGone(
        f"The copy on {remote} is not there any more.",
        evidence=what,
        remedy="Find out who deleted it, and whether the remote is the right one. "
        "Then `vmborg sync NAME --start-over` makes a new one.",
    )


def _is_numbered(name: str, prefix: str) -> bool:
    rest = name.removeprefix(prefix)
    return name.startswith(prefix) and rest.isascii() and rest.isdecimal()


def _number(name: str) -> int:
    """A segment's number; what is none belongs to nobody."""
    last = name.rpartition("/")[2]
    return int(last) if last.isascii() and last.isdecimal() else 2**63
