"""The sources of a repository, each with all its archives, and the marks that the repository carries. Pure.

A source is a VM by its UUID, whatever names it has had, or a dump host by its name and by the hypervisor that pulls it:
two of them may call different hosts alike. Nothing here goes by a glob or by the beginning of a name: `web` never meets
`web-2`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from infra.borg.client import ArchiveInfo
from infra.borg.names import encode, parse_archive_name
from infra.retention.holds import RETIRED, Mark, read_mark
from infra.retention.plan import Archive
from tasks.catalogue import VM, VmArchive, vm_archives

DUMP = "dump"
_UUID = 36  # characters of a whole one


@dataclass(frozen=True, slots=True)
class SourceArchives:
    """One source in one repository."""

    kind: str  # vm or dump
    id: str  # UUID (its first eight digits if no comment tells more); of a dump host `dump.NAME@HYPERVISOR`
    name: str  # as in its newest archive
    owner: str  # the hypervisor that its newest archive names; "" if it names none
    archives: tuple[Archive, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class Holding:
    """What a repository holds, as far as it is ours."""

    repository: str
    sources: tuple[SourceArchives, ...]
    marks: tuple[Mark, ...] = field(default=())
    companions: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """For each archive of a VM: the archives of dumps that make one recovery point with it."""

    @property
    def names(self) -> list[str]:
        """Every archive of every source."""
        return [archive.name for source in self.sources for archive in source.archives]

    def retired(self, source: str) -> list[Mark]:
        """The marks that call the source with this id retired, oldest first."""
        found = [mark for mark in self.marks if mark.kind == RETIRED and mark.subject == source]
        return sorted(found, key=lambda mark: mark.time)


def dump_id(host: str, owner: str) -> str:
    """What tells a dump host from every other source; no encoded name holds an `@`."""
    return f"dump.{encode(host)}@{owner}"


def read_holding(repository: str, infos: Iterable[ArchiveInfo]) -> Holding:
    """Sort a repository's archives into sources and marks; what somebody else put there is passed over."""
    vms: dict[str, list[tuple[VmArchive, Archive]]] = defaultdict(list)
    dumps: dict[tuple[str, str], list[Archive]] = defaultdict(list)
    marks: list[Mark] = []
    companions: dict[str, tuple[str, ...]] = {}
    for info in infos:
        name = parse_archive_name(info.name)
        if name is None:
            mark = read_mark(info.name, info.comment)
            marks += [mark] if mark else []
            continue
        partial = bool(info.comment.get("uncovered") or info.comment.get("bad"))
        archive = Archive(info.name, info.time, name.finished, partial)
        for vm in vm_archives(repository, [info]):
            vms[vm.uuid].append((vm, archive))
            companions[archive.name] = vm.dumps
        if name.kind == DUMP:
            dumps[name.source, info.comment.get("host", "")].append(archive)
    sources = [_vm(uuid, found) for uuid, found in _whole(vms).items()]
    sources += [_dump(host, owner, found) for (host, owner), found in dumps.items()]
    in_order = sorted(sources, key=lambda each: (each.name, each.id, each.owner))
    return Holding(repository, tuple(in_order), tuple(marks), companions)


def _whole(vms: dict[str, list[tuple[VmArchive, Archive]]]) -> dict[str, list[tuple[VmArchive, Archive]]]:
    """Archives without a comment belong to the one VM whose UUID begins as they say; if there are two, to neither."""
    merged = {uuid: list(found) for uuid, found in vms.items() if len(uuid) == _UUID}
    for short, found in vms.items():
        if len(short) == _UUID:
            continue
        fitting = [uuid for uuid in vms if len(uuid) == _UUID and uuid.startswith(short)]
        if len(fitting) == 1:
            merged[fitting[0]] += found
        else:
            merged[short] = list(found)
    return merged


def _vm(uuid: str, found: list[tuple[VmArchive, Archive]]) -> SourceArchives:
    found = sorted(found, key=lambda pair: (pair[1].time, pair[1].name))
    newest = next((vm for vm, archive in reversed(found) if archive.finished), found[-1][0])
    return SourceArchives(VM, uuid, newest.vm, newest.hypervisor, tuple(archive for _, archive in found))


def _dump(host: str, owner: str, found: list[Archive]) -> SourceArchives:
    in_order = tuple(sorted(found, key=lambda each: (each.time, each.name)))
    # A VM may bear the same name, and so may the dump host of another hypervisor.
    return SourceArchives(DUMP, dump_id(host, owner), host, owner, in_order)
