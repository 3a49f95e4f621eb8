"""Which archives there are, read from the repositories themselves: they are the truth about backups."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from infra.borg.client import ArchiveInfo
from infra.borg.names import ArchiveName, parse_archive_name
from infra.borg.peek import peek_archives
from infra.config.models import Config
from infra.errors import UsageError, VmborgError
from tasks.dumps.catalogue import DumpArchive, dump_archives
from tasks.repositories import open_repository

VM = "vm"


@dataclass(frozen=True, slots=True)
class VmArchive:
    """One VM archive, as its name and comment tell. Sizes in bytes; what the comment does not tell is empty."""

    repository: str
    archive: str
    vm: str
    uuid: str  # whole if the comment tells it, else its first eight digits
    time: datetime
    finished: bool  # False: its run ended before what borg stored was verified; never good
    consistency: str = ""
    frozen_ms: int | None = None
    disks: Mapping[str, int] = field(default_factory=dict[str, int])  # target: size that the guest sees
    uncovered: tuple[str, ...] = ()
    hypervisor: str = ""
    dumps: tuple[str, ...] = ()  # archives of dumps that were taken just before it
    seconds: float = 0.0  # that borg took to create it

    @property
    def size(self) -> int:
        """What the guest sees of all disks."""
        return sum(self.disks.values())

    def is_of(self, uuid: str) -> bool:
        """Whether it is an archive of the domain with this UUID."""
        return uuid == self.uuid if len(self.uuid) == len(uuid) else uuid.startswith(self.uuid)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The archives of some repositories, oldest first, and why others could not be read."""

    archives: tuple[VmArchive, ...]
    failures: Mapping[str, VmborgError]
    dumps: tuple[DumpArchive, ...] = ()

    def of(self, uuid: str) -> tuple[VmArchive, ...]:
        """The archives of one domain, oldest first."""
        return tuple(archive for archive in self.archives if archive.is_of(uuid))


def read_catalogue(config: Config, *, only: str | None = None) -> Catalogue:
    """Read every repository, or the one named `only`. One that cannot be read does not hide the others.

    Raises UsageError when the configuration has no repository of that name.
    """
    names = list(config.repositories) if only is None else [only]
    archives: list[VmArchive] = []
    dumps: list[DumpArchive] = []
    failures: dict[str, VmborgError] = {}
    for name in names:
        try:
            found = peek_archives(open_repository(config, name))
            archives += vm_archives(name, found)
            dumps += dump_archives(name, found)
        except UsageError:
            raise
        except VmborgError as error:
            failures[name] = error
    in_order = sorted(archives, key=lambda each: (each.time, each.archive))
    return Catalogue(tuple(in_order), failures, tuple(sorted(dumps, key=lambda each: (each.time, each.archive))))


def vm_archives(repository: str, found: Iterable[ArchiveInfo]) -> list[VmArchive]:
    """The VM archives among all of a repository; what somebody else put there is passed over. Pure."""
    parsed = ((each, parse_archive_name(each.name)) for each in found)
    return [_read(repository, info, name) for info, name in parsed if name is not None and name.kind == VM]


def _read(repository: str, info: ArchiveInfo, name: ArchiveName) -> VmArchive:
    comment = info.comment
    return VmArchive(
        repository=repository,
        archive=info.name,
        vm=name.source,
        # Names can be cut or copied; the comment counts only where it agrees with the name.
        uuid=_agreeing(comment.get("uuid", ""), name.uuid8),
        time=name.when.astimezone(UTC),
        finished=name.finished,
        consistency=comment.get("consistency", ""),
        frozen_ms=_number(comment.get("frozen_ms", "")),
        disks=_disks(comment.get("disks", "")),
        uncovered=tuple(target for target in comment.get("uncovered", "").split(",") if target),
        hypervisor=comment.get("host", ""),
        dumps=tuple(comment.get("dumps", "").split()),
        seconds=info.seconds,
    )


def _agreeing(uuid: str, uuid8: str) -> str:
    return uuid if uuid.startswith(uuid8) else uuid8


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


def _disks(text: str) -> dict[str, int]:
    """`vda:1024,vdb:2048`; what is not of this form is passed over."""
    parts = (part.rpartition(":") for part in text.split(","))
    return {target: count for target, _, size in parts if target and (count := _number(size)) is not None}


def select(archives: Sequence[VmArchive], vm: str) -> list[VmArchive]:
    """The archives of a VM, by name, or by the first digits (four or more) of its UUID."""
    named = [archive for archive in archives if archive.vm == vm]
    prefix = vm.lower()
    if named or len(prefix) < 4:  # noqa: PLR2004 - fewer digits meet a neighbour
        return named
    return [each for each in archives if each.uuid.startswith(prefix) or prefix.startswith(each.uuid)]
