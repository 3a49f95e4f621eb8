"""One small JSON file a domain, written before the domain is touched and removed when it is put back.

It is the only memory that survives a kill -9 or a power cut, so each write reaches the disk, file and
directory both, before it returns; and what cannot be read is never thrown away: it may name an overlay that a
guest writes to.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from infra.errors import JournalError
from infra.model import JournalEntry

VERSION = 2
_SUFFIX = ".json"
_UNFINISHED = ".new"
_ENTRY = TypeAdapter(JournalEntry)


class JournalContents(NamedTuple):
    """All open entries, and what could not be read."""

    entries: tuple[JournalEntry, ...]
    problems: tuple[JournalError, ...]


class Journal:
    """The open runs of this host. Callers hold the domain's lock while they write or close its entry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, uuid: str) -> Path:
        """The file of a domain's entry. Raises JournalError unless `uuid` is one: it becomes a file name."""
        if not _is_uuid(uuid):
            raise JournalError(f"{uuid!r} is no UUID of a domain.")
        return self.directory / f"{uuid}{_SUFFIX}"

    def write(self, entry: JournalEntry) -> None:
        """Store the entry durably, in place of an earlier one of the same run.

        Raises JournalError; also when the domain's file holds another run's entry or cannot be read, for both
        must be dealt with first.
        """
        path = self.path(entry.uuid)
        present = self.read(entry.uuid)
        if present is not None and present.run_id != entry.run_id:
            raise JournalError(
                f"The journal of {entry.name!r} still holds the run {present.run_id}.",
                evidence=f"{path}: begun {present.started.isoformat()}, phase {present.phase}",
                remedy=f"Put the domain back first: vmborg recover {entry.uuid}",
            )
        _check(entry, path)
        text = json.dumps({"version": VERSION, "entry": _ENTRY.dump_python(entry, mode="json")}, indent=2)
        try:
            make_private(self.directory)
            write_durably(path, text + "\n")
        except OSError as error:
            raise _failed("written", path, error) from error

    def read(self, uuid: str) -> JournalEntry | None:
        """The domain's open entry. Raises JournalError, naming the file, when that means nothing."""
        path = self.path(uuid)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", path, error) from error
        return _parse(raw, path)

    def entries(self) -> JournalContents:
        """Every open entry, by file name; one bad file does not hide the others. Raises nothing."""
        entries: list[JournalEntry] = []
        problems: list[JournalError] = []
        try:
            paths = sorted(self.directory.iterdir())
        except FileNotFoundError:
            paths = []
        except OSError as error:
            paths = []
            problems.append(_failed("read", self.directory, error))
        for path in paths:
            if path.suffix != _SUFFIX:
                continue
            try:
                entries.append(_parse(path.read_bytes(), path))
            except FileNotFoundError:
                continue  # closed meanwhile
            except OSError as error:
                problems.append(_failed("read", path, error))
            except JournalError as error:
                problems.append(error)
        return JournalContents(tuple(entries), tuple(problems))

    def close(self, uuid: str) -> None:
        """Remove the domain's entry: it is put back. Does nothing when there is none.

        Raises JournalError; also when the file cannot be read, for it may hold what nobody has put back.
        """
        path = self.path(uuid)
        if self.read(uuid) is None:
            return
        try:
            path.unlink(missing_ok=True)
            _sync_directory(self.directory)
        except OSError as error:
            raise _failed("closed", path, error) from error


def _parse(raw: bytes, path: Path) -> JournalEntry:
    try:
        document: Any = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _unreadable(path, "it is not a JSON object")
    fields = cast("dict[str, Any]", document)
    version = fields.get("version")
    if version != VERSION:
        raise _unreadable(path, f"its version is {version!r}, this vmborg knows {VERSION}")
    try:
        entry = _ENTRY.validate_python(fields.get("entry"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(path, f"{where}: {first['msg']}") from error
    _check(entry, path)
    return entry


def _check(entry: JournalEntry, path: Path) -> None:
    """Refuse an entry that would make a recovery act on something else than its own domain's disks."""
    if entry.uuid + _SUFFIX != path.name:
        raise _unreadable(path, f"it speaks of the domain {entry.uuid}")
    if entry.started.tzinfo is None:
        raise _unreadable(path, "its time has no zone")
    targets = [overlay.target for overlay in entry.overlays]
    paths = [each for overlay in entry.overlays for each in (overlay.path, overlay.base)]
    if len(set(targets)) != len(targets):
        raise _unreadable(path, "it names a disk twice")
    if len(set(paths)) != len(paths):
        raise _unreadable(path, "it names a file twice")
    if not all(each.startswith("/") and "\0" not in each for each in paths):
        raise _unreadable(path, "it names a file without its full path")


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def write_durably(path: Path, text: str) -> None:
    """Put a file in place of its predecessor; it is on the disk when this returns. Raises OSError."""
    unfinished = path.with_name(path.name + _UNFINISHED)
    with suppress(FileNotFoundError):
        unfinished.unlink()  # of a run that died while it wrote
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync_directory(path.parent)


def make_private(directory: Path) -> None:
    """Make a folder for root alone, if it is not there. Raises OSError."""
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_directory(directory.parent)
    directory.chmod(0o700)


def _sync_directory(directory: Path) -> None:
    """A file's name is on disk only when its directory is: fsync(2)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(verb: str, path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"The journal cannot be {verb}.",
        evidence=f"{path}: {error.strerror or error}",
        remedy="vmborg needs to read and write its state directory; see that it exists and has space.",
    )


def _unreadable(path: Path, why: str) -> JournalError:
    return JournalError(
        f"The journal file {path} means nothing to this vmborg.",
        evidence=why,
        remedy=(
            "It may name overlays that a guest still writes to, so it is left where it is. Look with "
            "`virsh domblklist` whether the domain is on its own disks; if it is, remove the file."
        ),
    )
