"""From borg's message ids and exit codes to typed errors with a remedy. Pure.

The message id decides, then the modern exit code (BORG_EXIT_CODES=modern, borg docs: usage/general/return-codes); an
unknown exit code is a failure. Warnings (1, 100..127) are for the caller to judge: on a disk image they mean that the
archive is not what it should be.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from infra.borg.messages import LogMessage
from infra.errors import (
    ArchiveExists,
    ArchiveIncomplete,
    ArchiveNotFound,
    BorgError,
    PassphraseWrong,
    RepositoryDamaged,
    RepositoryExists,
    RepositoryFull,
    RepositoryInvalid,
    RepositoryLocked,
    RepositoryNotFound,
    RepositoryUnreachable,
)
from infra.process import describe


@dataclass(frozen=True, slots=True)
class _Kind:
    error: type[BorgError]
    brief: str
    remedy: str


_NOT_FOUND = _Kind(
    RepositoryNotFound,
    "There is no repository at {location}.",
    "Check the location and that its disk is mounted, or create it: vmborg init.",
)
_LOCKED = _Kind(
    RepositoryLocked,
    "The repository {location} is locked by another borg.",
    "Wait for it. If no borg runs on any host: {borg} break-lock {place}",
)
_INVALID = _Kind(
    RepositoryInvalid,
    "{location} is not a repository that this borg can use.",
    "Check the location; a repository of borg 2 or of another version needs that borg.",
)
_PASSPHRASE = _Kind(
    PassphraseWrong,
    "The passphrase does not open the repository {location}.",
    "Check `passphrase` of this repository in the configuration and the secret that it names.",
)
_DAMAGED = _Kind(
    RepositoryDamaged,
    "The repository {location} is damaged.",
    "Run `borg check {location}` and look at the storage below it before anything else.",
)
_FULL = _Kind(
    RepositoryFull,
    "The repository {location} is full.",
    "Free space on its file system or raise its quota; earlier archives are not touched.",
)
_UNREACHABLE = _Kind(
    RepositoryUnreachable,
    "The connection to {location} failed or broke.",
    "Check the network and that `ssh` reaches this host without a question.",
)
_DENIED = _Kind(
    RepositoryInvalid,
    "The repository {location} cannot be used with these rights.",
    "Check owner and mode of its files and that its file system is writable; vmborg runs as root.",
)
_RELOCATED = _Kind(
    RepositoryInvalid,
    "borg asks whether the repository {location} is still the one it knew.",
    "If you moved it yourself, run this once by hand and answer y: {borg} info {place}",
)
_UNENCRYPTED = _Kind(
    RepositoryInvalid,
    "The repository {location} is not encrypted, and its configuration says that it is.",
    "If it has to be so, set `encryption: none`; else name a new location and run `vmborg init`.",
)
_REPLACED = _Kind(
    RepositoryInvalid,
    "The repository {location} is not what borg remembers of it: older, or of another encryption.",
    "If you put it there yourself, let borg forget what it remembers: remove {base}/.config/borg/security and "
    "{base}/.cache/borg. Else somebody has changed it: look at it before anything else.",
)
_EXISTS = _Kind(
    RepositoryExists,
    "There is a repository, or something else, at {location} already.",
    "Choose an empty place, or use what is there.",
)
_NO_ARCHIVE = _Kind(ArchiveNotFound, "The repository {location} holds no such archive.", "See `vmborg list`.")
_ARCHIVE_EXISTS = _Kind(
    ArchiveExists, "The repository {location} holds an archive of this name already.", "See `vmborg list`."
)
_INCOMPLETE = _Kind(
    ArchiveIncomplete,
    "borg could not read everything; that archive is not kept.",
    "Look at the file that borg names and the storage below it, then back up again.",
)
_KILLED = _Kind(
    BorgError,
    "borg was ended from outside while it worked on {location}.",
    "See who ended it: the kernel for want of memory (journalctl -k), or a person. The next run clears what it left.",
)
_OUTDATED = _Kind(
    BorgError,
    "The borg on the other side of {location} cannot do what was asked.",
    "Install borg 1.4 there, and let its forced command (borg serve) reach this path.",
)
_OTHER = _Kind(BorgError, "borg failed on {location}.", "Look at what borg says; docs/operations.md knows most of it.")

# By the exit codes of BORG_EXIT_CODES=modern (borg docs: usage/general/return-codes) ...
_BY_CODE = {
    **dict.fromkeys((10, 19), _EXISTS),
    **dict.fromkeys((13, 18), _NOT_FOUND),
    **dict.fromkeys((14, 20), _FULL),
    **dict.fromkeys((11, 15, 16, 25, 26, 27, 48), _INVALID),
    **dict.fromkeys((21, 72), _DENIED),
    30: _ARCHIVE_EXISTS,
    31: _NO_ARCHIVE,
    **dict.fromkeys((40, 41, 42, 43, 44, 45, 50, 51, 52, 53), _PASSPHRASE),
    60: _UNENCRYPTED,
    62: _RELOCATED,
    **dict.fromkeys((61, 63, 64), _REPLACED),
    **dict.fromkeys((70, 71, 73, 74, 75), _LOCKED),
    **dict.fromkeys((80, 81, 87), _UNREACHABLE),
    **dict.fromkeys((82, 83, 84, 85, 86), _OUTDATED),
    **dict.fromkeys((12, 17, 90, 91, 92, 95, 96, 97, 98, 99), _DAMAGED),
}
# ... and by message ids, for what reaches us with a code of no meaning: an error of `borg serve` (code 2).
_BY_MSGID = {
    "Repository.AlreadyExists": _EXISTS,
    "Repository.PathAlreadyExists": _EXISTS,
    "Repository.DoesNotExist": _NOT_FOUND,
    "Repository.ParentPathDoesNotExist": _NOT_FOUND,
    "Repository.InsufficientFreeSpaceError": _FULL,
    "Repository.StorageQuotaExceeded": _FULL,
    "Repository.AtticRepository": _INVALID,
    "Repository.InvalidRepository": _INVALID,
    "Repository.InvalidRepositoryConfig": _INVALID,
    "Repository.PathPermissionDenied": _DENIED,
    "Repository.CheckNeeded": _DAMAGED,
    "Repository.ObjectNotFound": _DAMAGED,
    "IntegrityError": _DAMAGED,
    "LockTimeout": _LOCKED,
    "LockError": _LOCKED,
    "LockFailed": _DENIED,
    "PathNotAllowed": _OUTDATED,
}
_WARNINGS = range(100, 128)
_SIGNALLED = 128  # and the signal's number: borg caught it and cleaned up
# Errors of the operating system reach us as a traceback, without a name of borg's.
_BY_TEXT = (
    ("No space left on device", _FULL),
    ("Read-only file system", _DENIED),
    ("Permission denied", _DENIED),
    ("self.config.read_file", _INVALID),
    ("configparser.", _INVALID),
)
_NO_SUCH_ARCHIVE = re.compile(r"^Archive .* not found \(\d+/\d+\)\.$", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"


def failure(
    argv: Sequence[str], returncode: int, messages: Sequence[LogMessage], *, location: str, base_dir: str = ""
) -> BorgError | None:
    """The error that a borg run ended with; None for exit code 0. `base_dir` is its BORG_BASE_DIR, for remedies."""
    if returncode == 0:
        return None
    said = [message for message in messages if message.is_warning] or list(messages)
    text = "\n".join(message.message for message in said)
    msgid = next((message.msgid for message in reversed(said) if message.msgid), "")
    kind = _BY_MSGID.get(msgid) or _by_code(returncode, text) or _by_text(text) or _OTHER
    return kind.error(
        kind.brief.format(location=location),
        evidence=describe(argv, returncode, "\n".join(essence(message.message) for message in said)),
        remedy=kind.remedy.format(
            location=location,
            place=shlex.quote(location),
            base=shlex.quote(base_dir),
            # What borg remembers of a repository is ours, not that of root's own borg.
            borg=f"BORG_BASE_DIR={shlex.quote(base_dir)} {shlex.quote(argv[0])}",
        ),
        returncode=returncode,
        msgid=msgid,
    )


def _by_code(returncode: int, text: str) -> _Kind | None:
    if returncode == 1 and _NO_SUCH_ARCHIVE.search(text):  # delete calls it a warning
        return _NO_ARCHIVE
    if is_warning(returncode):
        return _INCOMPLETE
    if returncode < 0 or returncode > _SIGNALLED:
        return _KILLED
    return _BY_CODE.get(returncode)


def _by_text(text: str) -> _Kind | None:
    return next((kind for part, kind in _BY_TEXT if part in text), None)


def essence(message: str) -> str:
    """A message without the middle of its traceback and what borg tells of the system: where and what it was."""
    before, found, trace = message.partition(_TRACEBACK)
    if not found:
        return message.rstrip()
    lines = [line for line in trace.partition("\nPlatform: ")[0].splitlines() if line.strip()]
    last = max((number for number, line in enumerate(lines) if not line.startswith(" ")), default=0)
    return "\n".join(part for part in (before.strip(), *lines[last:][:3]) if part)


def is_warning(returncode: int) -> bool:
    """Whether borg calls this exit code a warning: something was left out or changed while it was read."""
    return returncode == 1 or returncode in _WARNINGS
