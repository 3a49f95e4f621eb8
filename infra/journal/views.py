"""What every open view of an archive has made on this host: written before it is made, removed when it is gone.

A file a view, and a lock beside it that its command holds. What a dead command left is found by that, and taken away.
"""

import fcntl
import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from infra.errors import DomainBusy, JournalError
from infra.journal.store import make_private, write_durably

_VERSION = 1
_NAME = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class BootedDisk:
    """One disk of a VM that runs out of an archive. Bytes."""

    target: str
    overlay: str  # takes what the guest writes, on top of the view
    size: int  # what the guest sees
    below: tuple[tuple[str, str], ...]  # path and format of the images of the view that it lies on
    stored: int = 0  # what they hold, holes left out
    cache: str = ""  # of its driver in the archived definition, and `io`: while it lies on the view it does without
    io: str = ""
    kept: str = ""  # the image that all of it is copied into; "" until that was asked for

    @property
    def base(self) -> str:
        """The image of the view right below the overlay."""
        return self.below[0][0]


@dataclass(frozen=True, slots=True)
class BootedVm:
    """A VM that runs out of an archive, and all that was made for it beside the view."""

    name: str
    uuid: str
    folder: str  # of the overlays; made for it if its name says so
    disks: tuple[BootedDisk, ...]
    boot_files: tuple[tuple[str, str], ...] = ()  # role (nvram, kernel, ...) and path
    tpm: str = ""  # the folder of its TPM's state
    keep: str = ""  # where it is moving to
    kept: bool = False  # it is there: only overlays and view are left to be taken away


@dataclass(frozen=True, slots=True)
class OpenView:
    """One archive, shown on this host."""

    number: str  # its own, twelve hexadecimal digits
    vm: str
    archive: str
    repository: str
    started: datetime
    place: str  # the folder of its mounts
    standing: bool = False  # it outlives its command
    mounted: str = ""  # where the guest's files are shown to the administrator
    boot: BootedVm | None = None  # the VM that runs from it


class OpenViews(NamedTuple):
    """All that are open, and what could not be read."""

    views: tuple[OpenView, ...]
    problems: tuple[JournalError, ...]


_VIEW = TypeAdapter(OpenView)


class ViewJournal:
    """The open views of this host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _path(self, number: str) -> Path:
        if not _NAME.fullmatch(number):
            raise JournalError(f"{number!r} is no number of a view.")
        return self.directory / f"{number}.json"

    def write(self, view: OpenView) -> None:
        """Store it durably. Raises JournalError."""
        document = {"version": _VERSION, "view": _VIEW.dump_python(view, mode="json")}
        try:
            make_private(self.directory)
            write_durably(self._path(view.number), json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise _failed("written", self._path(view.number), error) from error

    def read(self, number: str) -> OpenView | None:
        """The view of this number; None when it is closed. Raises JournalError."""
        path = self._path(number)
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _failed("read", path, error) from error
        return _parsed(text, path)

    def entries(self) -> OpenViews:
        """Every open view; one bad file does not hide the others. Raises nothing."""
        views: list[OpenView] = []
        problems: list[JournalError] = []
        for path in sorted(self.directory.glob("*.json")):
            try:
                found = self.read(path.stem)
            except JournalError as error:
                problems.append(error)
                continue
            if found is not None:
                views.append(found)
        return OpenViews(tuple(views), tuple(problems))

    def close(self, number: str) -> None:
        """Forget it: all that it made is gone. Raises JournalError."""
        path = self._path(number)
        try:
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
        except OSError as error:
            raise _failed("closed", path, error) from error

    @contextmanager
    def hold(self, number: str) -> Generator[None]:
        """Work on it, alone, for the block. Raises DomainBusy when another command does, JournalError."""
        path = self._path(number).with_suffix(".lock")
        try:
            make_private(self.directory)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _failed("locked", path, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DomainBusy(
                    "Another command works on this view of an archive.",
                    evidence=f"{path} is held",
                    remedy="Wait for it, or end it; the lock goes with its process.",
                ) from error
            yield
        finally:
            os.close(descriptor)


def _parsed(text: str, path: Path) -> OpenView:
    try:
        document = json.loads(text)
        version, view = document["version"], _VIEW.validate_python(document["view"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise _failed("understood", path, error) from error
    if version != _VERSION:
        raise _failed("understood", path, ValueError(f"its version is {version!r}, this vmborg knows {_VERSION}"))
    if view.number != path.stem:
        raise _failed("understood", path, ValueError(f"it speaks of the view {view.number}"))
    return view


def _failed(verb: str, path: Path, error: Exception) -> JournalError:
    return JournalError(
        f"What an open view of an archive has made cannot be {verb}.",
        evidence=f"{path}: {error}",
        remedy="See that state_dir can be written to and has space; `findmnt -t fuse` shows what is mounted.",
    )
