"""Which archive, and what it says of itself: names, items, manifest, definition. Nothing of it is trusted yet."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.borg.client import ArchiveInfo, ArchiveItem, Repository
from infra.borg.names import ArchiveName, parse_archive_name
from infra.errors import ArchiveIncomplete, ArchiveNotFound, ManifestError, UnsafeArchive, UsageError
from infra.manifest import ARCHIVE_DIR, DOMAIN_LIVE_XML, DOMAIN_XML, MANIFEST_PATH, Manifest, expected_items, parse
from tasks.restore.workspace import require_space

LATEST = "latest"
_UUID_PREFIX = re.compile(r"[0-9a-f]{4}[0-9a-f-]{0,32}")
_DIRECTORY, _FILE = "d", "-"
_TEXTS = (MANIFEST_PATH, DOMAIN_XML, DOMAIN_LIVE_XML)
_LONGEST_TEXT = 16 * 1024 * 1024
"""Bytes of a manifest or definition: one of a thousand disks has less than one MiB."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An archive of a VM."""

    name: str
    parsed: ArchiveName


@dataclass(frozen=True, slots=True)
class Opened:
    """An archive whose metadata was brought to `directory` and read."""

    name: str
    manifest: Manifest
    xml: str
    directory: Path  # holds vmborg/…


def vm_archives(names: Iterable[str], vm: str, *, uuid: str = "") -> list[Candidate]:
    """The VM archives among `names` that belong to `vm`, oldest first.

    `uuid` is that of the domain which is meant, if it is defined: its archives are found from before it was renamed,
    and another VM's of the same name are not among them. Else those of the name count, and if there are none, `vm` is
    the beginning of a UUID (four digits or more).
    """
    parsed = [Candidate(name, found) for name in names if (found := parse_archive_name(name)) is not None]
    every = [each for each in parsed if each.parsed.kind == "vm"]
    prefix = vm.lower()[:8] if _UUID_PREFIX.fullmatch(vm.lower()) else " "
    by_uuid = [each for each in every if uuid and each.parsed.uuid8 == uuid[:8]]
    by_name = [each for each in every if each.parsed.source == vm]
    by_prefix = [each for each in every if each.parsed.uuid8.startswith(prefix)]
    return sorted(by_uuid or by_name or by_prefix, key=lambda each: (each.parsed.when, each.name))


def choose(names: Iterable[str], vm: str, wanted: str, *, uuid: str = "", repository: str = "") -> Candidate:
    """The archive to restore: the newest finished one, or the one named.

    Raises ArchiveNotFound, UsageError (another VM's archive, or archives of several VMs), ArchiveIncomplete (it was
    never finished).
    """
    names = list(names)
    mine = vm_archives(names, vm, uuid=uuid)
    if wanted == LATEST:
        finished = [each for each in mine if each.parsed.finished]
        if not finished:
            raise _none(vm, names, repository, unfinished=len(mine))
        _require_one(vm, finished)
        return finished[-1]
    if wanted not in names:
        last = "\n".join(each.name for each in mine[-5:])
        raise ArchiveNotFound(
            f"There is no archive {wanted!r} in the repository {repository!r}.",
            evidence=f"of {vm!r} it has:\n{last}" if last else f"it has none of {vm!r}",
            remedy=f"Name one of these, or leave --archive out for the newest: vmborg list {vm}",
        )
    every = [*mine, *vm_archives(names, vm)]  # named outright, one of an earlier VM of this name will do
    found = next((each for each in every if each.name == wanted), None)
    if found is None:
        raise UsageError(
            f"The archive {wanted} is not one of the VM {vm!r}.",
            remedy="Name the VM that it belongs to.",
        )
    if not found.parsed.finished:
        raise ArchiveIncomplete(
            f"The archive {wanted} was never finished.",
            evidence="its run ended before what borg stored was verified",
            remedy=f"Restore a finished one: vmborg list {vm}",
        )
    return found


def _require_one(vm: str, finished: list[Candidate]) -> None:
    newest = {each.parsed.uuid8: each.name for each in finished}
    if len(newest) > 1:
        raise UsageError(
            f"There are archives of {len(newest)} VMs that {vm!r} may mean.",
            evidence="\n".join(f"UUID {uuid8}-…: newest archive {name}" for uuid8, name in sorted(newest.items())),
            remedy="Name the one that is meant by the beginning of its UUID, or one of its archives with --archive.",
        )


def _none(vm: str, names: list[str], repository: str, *, unfinished: int) -> ArchiveNotFound:
    known = sorted({found.source for name in names if (found := parse_archive_name(name)) and found.kind == "vm"})
    evidence = f"it has {unfinished} unfinished ones, which are never restored" if unfinished else ""
    return ArchiveNotFound(
        f"There is no finished archive of the VM {vm!r} in the repository {repository!r}.",
        evidence=evidence or f"it has archives of: {', '.join(known) or 'no VM'}",
        remedy="Check the name, or name another repository with --repository.",
    )


def check_items(items: Iterable[ArchiveItem], manifest: Manifest | None = None) -> None:
    """Raise UnsafeArchive for anything but plain files and directories: a link redirects what is extracted after it.

    With `manifest`, also raise ArchiveIncomplete for what it promises and is not there.
    """
    found: dict[str, ArchiveItem] = {}
    for item in items:
        if item.type not in (_DIRECTORY, _FILE):
            raise UnsafeArchive(
                "The archive holds something that is neither a file nor a directory.",
                evidence=f"{item.path!r} is of borg's type {item.type!r}",
                remedy="vmborg never stores such; look at it with borg list.",
            )
        if item.path.startswith("/") or ".." in item.path.split("/") or item.path in found:
            raise UnsafeArchive(
                "The archive holds a path that leads outside of it, or one path twice.",
                evidence=repr(item.path),
                remedy="vmborg never stores such; look at it with borg list.",
            )
        found[item.path] = item
    if manifest is not None:
        _require_promised(found, manifest)


def _require_promised(found: dict[str, ArchiveItem], manifest: Manifest) -> None:
    wrong: list[str] = []
    for path, size in expected_items(manifest).items():
        if path not in found:
            wrong.append(f"{path}: not in the archive")
        elif size is not None and found[path].size != size:
            wrong.append(f"{path}: {found[path].size} bytes stored, {size} expected")
    if wrong:
        raise ArchiveIncomplete(
            "The archive does not hold what its manifest promises.",
            evidence="\n".join(wrong),
            remedy="Restore another archive, and look at this one with borg check --verify-data.",
        )


def open_archive(repository: Repository, archive: str, directory: Path) -> Opened:
    """Bring the archive's metadata to `directory` and read it; how much that is is known before.

    Raises UnsafeArchive, ArchiveIncomplete, ManifestError, NoSpace, and borg's typed errors.
    """
    items = repository.items(archive)
    check_items(items)
    sizes = {item.path: item.size for item in items if item.type == _FILE}
    if MANIFEST_PATH not in sizes:
        raise ManifestError(
            f"The archive {archive} has no manifest.",
            evidence=f"{MANIFEST_PATH} is not among its {len(items)} items",
            remedy="It was not made by vmborg; docs/restore-by-hand.md shows what borg alone can do.",
        )
    texts = [path for path in _TEXTS if path in sizes]  # most archives have no other metadata: borg is started once
    require_short(sizes, texts)
    _fetch(repository, archive, sizes, texts, to=directory)
    manifest = parse((directory / MANIFEST_PATH).read_text("utf-8", "replace"))
    require_agreeing(archive, manifest)
    check_items(items, manifest)
    wanted = metadata_files(sizes, manifest)
    require_short(sizes, [path for path in (manifest.domain_xml, manifest.domain_live_xml) if path])
    _fetch(repository, archive, sizes, [path for path in wanted if path not in texts], to=directory)
    xml = (directory / manifest.domain_xml).read_text("utf-8", "replace")
    return Opened(archive, manifest, xml, directory)


def _fetch(repository: Repository, archive: str, sizes: Mapping[str, int], paths: list[str], *, to: Path) -> None:
    if paths:
        require_space([(to, sum(sizes[path] for path in paths))])
        repository.extract(archive, paths, to)


def require_short(sizes: Mapping[str, int], paths: Iterable[str]) -> None:
    """Raise UnsafeArchive for a text that is longer than any such text can be."""
    for path in paths:
        if sizes[path] > _LONGEST_TEXT:
            raise UnsafeArchive(
                "The archive holds a text that is too long to be one.",
                evidence=f"{path}: {sizes[path]} bytes",
                remedy="vmborg never stores such; look at it with borg list.",
            )


def metadata_files(sizes: Mapping[str, int], manifest: Manifest) -> list[str]:
    """The files beside the manifest. Raises UnsafeArchive for one that the manifest does not name."""
    found = sorted(path for path in sizes if path.startswith(f"{ARCHIVE_DIR}/") and path != MANIFEST_PATH)
    strangers = [path for path in found if path not in expected_items(manifest)]
    if strangers:
        raise UnsafeArchive(
            "The archive holds files that its manifest does not name.",
            evidence="\n".join(f"{path}: {sizes[path]} bytes" for path in strangers[:10]),
            remedy="vmborg never stores such; look at them with borg list.",
        )
    return found


def require_agreeing(archive: str, manifest: Manifest) -> None:
    """Raise UnsafeArchive when the archive is not of the VM that its name tells: it was chosen by that."""
    name = parse_archive_name(archive)
    if name is None or (name.uuid8, name.source) != (manifest.uuid[:8], manifest.vm):
        raise UnsafeArchive(
            "The archive's manifest is that of another VM than its name tells.",
            evidence=f"{archive} holds {manifest.vm!r}, UUID {manifest.uuid}",
            remedy="Do not restore it unless you know why: docs/restore-by-hand.md.",
        )


def archive_names(archives: Iterable[ArchiveInfo]) -> list[str]:
    """The names alone."""
    return [archive.name for archive in archives]
