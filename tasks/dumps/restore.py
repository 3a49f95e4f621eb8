"""Bring a dump back: into a file, or into the database that it came from.

What comes out of the archive is compared with the manifest's checksum before a byte of it goes anywhere.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.borg.client import Repository
from infra.config.models import Config
from infra.dumps.guest import REFUSED
from infra.dumps.manifest import FILE, Dump, DumpManifest, parse
from infra.dumps.script import first_lines, remote_command
from infra.dumps.source import Role, Source
from infra.dumps.tree import CONTENT, storing
from infra.errors import ArchiveIncomplete, ArchiveNotFound, DumpFailed, TargetExists, UsageError
from infra.ssh.connection import connect
from tasks.catalogue import read_catalogue
from tasks.dumps.catalogue import DumpArchive
from tasks.dumps.hosts import endpoint, find_host, password_of
from tasks.repositories import open_repository, repository_names

logger = logging.getLogger("vmborg.dumps")

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """An archive of dumps and what it says of itself."""

    repository: Repository
    archive: str
    manifest: DumpManifest


@dataclass(frozen=True, slots=True)
class Login:
    """Whom a restore logs in as, in place of what the configuration says: a key that dumps may not restore."""

    user: str | None = None
    key: Path | None = None


def open_archive(config: Config, host: str, archive: str | None, *, repository: str | None = None) -> Opened:
    """The archive of this name, or the newest finished one of the host, in the repository named or in any.

    Of one archive in several repositories that in the host's own is taken. A replica is taken by itself only when that
    one answers: the newest there may be older. Raises ArchiveNotFound, ManifestError, UsageError (no such repository),
    and borg's typed errors.
    """
    found = _choose(config, host, archive, repository)
    opened = open_repository(config, found.repository)
    text = opened.extract_stdout(found.archive, f"{CONTENT}/{FILE}")
    return Opened(opened, found.archive, parse(text))


def _choose(config: Config, host: str, archive: str | None, repository: str | None) -> DumpArchive:
    if repository is not None:
        repository_names(config, repository)
    catalogue = read_catalogue(config, only=repository)
    known = config.dumps.hosts.get(host)
    own = known.repository if known else ""
    if known and not repository and own in catalogue.failures:
        error = catalogue.failures[own]
        if known.replicas:
            error.remedy += f" Or restore from a replica: --repository {known.replicas[0]}."
        raise error
    mine = [each for each in catalogue.dumps if each.host == host or (not host and each.archive == archive)]
    if archive is None:  # another hypervisor may pull another host under this name
        mine = [each for each in mine if each.hypervisor in {config.hypervisor.name, ""}] or mine
    wanted = [each for each in mine if each.finished and archive in {None, each.archive}]
    if not wanted:
        raise ArchiveNotFound(
            f"There is no such archive of dumps of {host!r}.",
            evidence=f"finished ones: {', '.join(each.archive for each in mine if each.finished) or 'none'}"
            + (f"; not read: {', '.join(catalogue.failures)}" if catalogue.failures else ""),
            remedy="See `vmborg dumps list`.",
        )
    return max(reversed(wanted), key=lambda each: (each.time, each.repository == own))


def find_dump(opened: Opened, source: str, database: str | None, *, users: bool) -> Dump:
    """One dump of a source. Raises UsageError, naming what there is."""
    found = opened.manifest.source(source)
    dumps = found.dumps if found else ()
    role = Role.GLOBALS if users else None
    wanted = [dump for dump in dumps if _is_wanted(dump, database, role)]
    if len(wanted) == 1:
        return wanted[0]
    sources = ", ".join(each.source for each in opened.manifest.sources)
    databases = ", ".join(repr(dump.database) for dump in dumps if dump.role is Role.DATABASE)
    has = f"{source} has the databases {databases or 'none'}" if found else f"sources of this archive: {sources}"
    raise UsageError(
        "Say which dump is meant." if len(wanted) > 1 else f"{opened.archive} has no such dump.",
        evidence=has,
        remedy="Name one with --database, or --globals for roles and users.",
    )


def _is_wanted(dump: Dump, database: str | None, role: Role | None) -> bool:
    if dump.role is Role.FILE:
        return False
    if role is not None or database is None:
        return dump.role is role if role else dump.role is not Role.GLOBALS
    return dump.role is Role.DATABASE and dump.database == database


@contextmanager
def checked_file(opened: Opened, dump: Dump, folder: Path) -> Generator[Path]:
    """The dump out of the archive, in a file of its own in `folder` that goes away at the end of the block.

    Raises NoSpace, StorageError, ArchiveIncomplete (it is not what the manifest says), and borg's typed errors.
    """
    with storing(folder):
        handle, name = tempfile.mkstemp(prefix=".vmborg-dump-", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            opened.repository.extract_to(opened.archive, f"{CONTENT}/{dump.path}", file)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != dump.sha256:
            raise ArchiveIncomplete(
                "What came out of the archive is not what was dumped; nothing was restored.",
                evidence=f"{dump.path}: sha256 {found}, the manifest says {dump.sha256}",
                remedy="Restore another archive, and check the repository.",
            )
        yield path
    finally:
        path.unlink(missing_ok=True)


def restore_to_file(opened: Opened, dump: Dump, target: Path) -> None:
    """Write a dump to a new file. Raises TargetExists, and what `checked_file` raises."""
    _require_free(target)
    with checked_file(opened, dump, target.parent) as path:
        _require_free(target)
        with storing(target.parent):
            os.link(path, target)  # never replaces, as a rename would


def restore_files(opened: Opened, source: str, target: Path) -> int:
    """Extract a `files` source into a new folder; return how many files it holds. Raises TargetExists, NoSpace."""
    _require_free(target)
    found = opened.manifest.source(source)
    count = sum(dump.role is Role.FILE for dump in found.dumps) if found else 0
    with storing(target.parent):
        work = Path(tempfile.mkdtemp(prefix=".vmborg-dump-", dir=target.parent))
    try:
        opened.repository.extract(opened.archive, [f"{CONTENT}/{source}"], work)
        _require_free(target)
        with storing(target.parent):
            (work / CONTENT / source).rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def _require_free(target: Path) -> None:
    if not target.parent.is_dir():
        raise UsageError(f"There is no folder {target.parent}.", evidence=str(target), remedy="Make it first.")
    if target.exists() or target.is_symlink():
        raise TargetExists(f"{target} exists already.", evidence=str(target), remedy="Name another file, or move it.")


def configured_source(config: Config, host: str, label: str) -> Source:
    """The source of this name in the configuration. Raises UsageError."""
    sources = find_host(config, host).sources
    found = next((each for each in sources if each.label == label), None)
    if found is None:
        raise UsageError(
            f"{host!r} has no source {label!r} in the configuration.",
            evidence=f"its sources: {', '.join(each.label for each in sources)}",
            remedy="Restore with --to FILE, or add the source.",
        )
    return found


def require_way_back(source: Source) -> None:
    """Raise UsageError for a source whose dumps vmborg does not put back itself; the remedy says how it is done."""
    if source.by_hand:
        raise UsageError(
            f"What the source {source.label!r} gives is not put back by vmborg: there is no safe way for it.",
            evidence=f"its kind is {source.kind!r}; docs/dumps.md, 'Restoring by hand'",
            remedy=source.by_hand,
        )


def restore_into(config: Config, opened: Opened, dump: Dump, *, host: str, source: Source, login: Login) -> str:
    """Stream a dump into the database; `dump.database` names it. Returns what the command said.

    Raises UsageError (this kind has no way back), DumpFailed (the database refused it), and SshError's subtypes.
    """
    require_way_back(source)
    script = source.restoring(source.unit_of(dump.role, dump.database))
    settings = find_host(config, host)
    password = password_of(settings, host, source)
    named = dump.role is Role.DATABASE
    command = remote_command(script, login_variable=source.login_variable if password else "", named=named)
    first = first_lines(password=password, name=dump.database if named else None)
    with (
        checked_file(opened, _stored(opened, dump, source), config.state.root) as path,
        connect(endpoint(config, host, login=(login.user, login.key))) as connection,
    ):
        ended = connection.send(
            command, _blocks(first, path), stall_s=settings.stall_timeout, deadline_s=settings.deadline
        )
    if REFUSED in ended.errors:
        raise DumpFailed(
            f"Nothing was restored: the key of {host!r} may only dump.",
            evidence=f"its forced command let the restore of {dump.title!r} not through",
            remedy="Name a login that may restore with --user, and its key with --key.",
            status=ended.exit_code,
        )
    if ended.exit_code != 0:
        raise DumpFailed(
            f"{dump.title!r} could not be restored into {source.label!r} on {host!r}.",
            evidence=f"{script}\nexited with {ended.exit_code}\n{ended.errors}".rstrip(),
            remedy="See what it says. A user that may only dump cannot restore: use --user and --key.",
            status=ended.exit_code,
        )
    return ended.errors


def _stored(opened: Opened, dump: Dump, source: Source) -> Dump:
    """The dump as the archive has it: `dump` may carry the name of another database to restore into."""
    found = opened.manifest.source(source.label)
    return next((each for each in found.dumps if each.path == dump.path), dump) if found else dump


def _blocks(first: bytes, path: Path) -> Iterator[bytes]:
    yield first
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
