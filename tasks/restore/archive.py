"""Which archive, and what it says of itself: names, items, manifest, definition. Nothing of it is trusted yet."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.borg.client import ArchiveInfo, ArchiveItem, Repository
from infra.borg.names import ArchiveName, parse_archive_name
from infra.errors import ArchiveIncomplete, ArchiveNotFound, ManifestError, UnsafeArchive, UsageError
from infra.manifest import ARCHIVE_DIR, Manifest, expected_items, parse

LATEST = "latest"
_UUID_PREFIX = re.compile(r"[0-9a-f]{4}[0-9a-f-]{0,32}")
_DIRECTORY, _FILE = "d", "-"


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

    `vm` is a name or the beginning of a UUID (four digits or more); `uuid` is that of a domain which has this name
    now, so that archives from before it was renamed are found.
    """
    parsed = [Candidate(name, found) for name in names if (found := parse_archive_name(name)) is not None]
    mine = [each for each in parsed if each.parsed.kind == "vm" and _belongs(each.parsed, vm, uuid)]
    return sorted(mine, key=lambda each: (each.parsed.when, each.name))


def _belongs(archive: ArchiveName, vm: str, uuid: str) -> bool:
    if archive.source == vm or (uuid and archive.uuid8 == uuid[:8]):
        return True
    prefix = vm.lower()
    return bool(_UUID_PREFIX.fullmatch(prefix)) and archive.uuid8.startswith(prefix[:8])


def choose(names: Iterable[str], vm: str, wanted: str, *, uuid: str = "", repository: str = "") -> Candidate:
    """The archive to restore: the newest finished one, or the one named.

    Raises ArchiveNotFound, UsageError (another VM's archive), ArchiveIncomplete (it was never finished).
    """
    names = list(names)
    mine = vm_archives(names, vm, uuid=uuid)
    if wanted == LATEST:
        finished = [each for each in mine if each.parsed.finished]
        if not finished:
            raise _none(vm, names, repository, unfinished=len(mine))
        return finished[-1]
    if wanted not in names:
        last = "\n".join(each.name for each in mine[-5:])
        raise ArchiveNotFound(
            f"There is no archive {wanted!r} in the repository {repository!r}.",
            evidence=f"of {vm!r} it has:\n{last}" if last else f"it has none of {vm!r}",
            remedy=f"Name one of these, or leave --archive out for the newest: vmborg list {vm}",
        )
    found = next((each for each in mine if each.name == wanted), None)
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
    """Bring the archive's metadata to `directory` and read it.

    Raises UnsafeArchive, ArchiveIncomplete, ManifestError, and borg's typed errors.
    """
    items = repository.items(archive)
    check_items(items)
    if not any(item.path == f"{ARCHIVE_DIR}/manifest.json" for item in items):
        raise ManifestError(
            f"The archive {archive} has no manifest.",
            evidence=f"{ARCHIVE_DIR}/manifest.json is not among its {len(items)} items",
            remedy="It was not made by vmborg; docs/restore-by-hand.md shows what borg alone can do.",
        )
    repository.extract(archive, [ARCHIVE_DIR], directory)
    manifest = parse((directory / ARCHIVE_DIR / "manifest.json").read_text("utf-8", "replace"))
    check_items(items, manifest)
    xml = (directory / manifest.domain_xml).read_text("utf-8", "replace")
    return Opened(archive, manifest, xml, directory)


def archive_names(archives: Iterable[ArchiveInfo]) -> list[str]:
    """The names alone."""
    return [archive.name for archive in archives]
