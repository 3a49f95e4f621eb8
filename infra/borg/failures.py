"""From borg's message ids and exit codes to typed errors with a remedy. Pure.

The message id decides, then the modern exit code (BORG_EXIT_CODES=modern, borg docs: usage/general/return-codes); an
unknown exit code is a failure. Warnings (1, 100..127) are for the caller to judge: on a disk image they mean that the
archive is not what it should be.
"""

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
    "Wait for it. If no borg runs on any host: borg break-lock {location}.",
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
    "Check owner and mode of its files; vmborg runs as root.",
)
_RELOCATED = _Kind(
    RepositoryInvalid,
    "borg asks whether the repository {location} is still the one it knew.",
    "If you moved or replaced it yourself, run `borg info {location}` by hand once and answer.",
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
_OTHER = _Kind(BorgError, "borg failed on {location}.", "Look at what borg says; docs/operations.md knows most of it.")

_BY_MSGID = {
    "Repository.DoesNotExist": _NOT_FOUND,
    "Repository.ParentPathDoesNotExist": _NOT_FOUND,
    "LockTimeout": _LOCKED,
    "LockFailed": _DENIED,
    "LockError": _LOCKED,
    "Repository.InvalidRepository": _INVALID,
    "Repository.InvalidRepositoryConfig": _INVALID,
    "Manifest.NoManifestError": _INVALID,
    "UnsupportedManifestError": _INVALID,
    "UnsupportedPayloadError": _INVALID,
    "UnsupportedKeyFormatError": _INVALID,
    "PassphraseWrong": _PASSPHRASE,
    "NoPassphraseFailure": _PASSPHRASE,
    "PasscommandFailure": _PASSPHRASE,
    "KeyfileNotFoundError": _PASSPHRASE,
    "RepoKeyNotFoundError": _PASSPHRASE,
    "IntegrityError": _DAMAGED,
    "FileIntegrityError": _DAMAGED,
    "DecompressionError": _DAMAGED,
    "Repository.CheckNeeded": _DAMAGED,
    "Repository.ObjectNotFound": _DAMAGED,
    "Repository.InsufficientFreeSpaceError": _FULL,
    "Repository.StorageQuotaExceeded": _FULL,
    "ConnectionClosed": _UNREACHABLE,
    "ConnectionClosedWithHint": _UNREACHABLE,
    "ConnectionBroken": _UNREACHABLE,
    "Repository.PathPermissionDenied": _DENIED,
    "Repository.AlreadyExists": _EXISTS,
    "Repository.PathAlreadyExists": _EXISTS,
    "Archive.DoesNotExist": _NO_ARCHIVE,
    "Archive.AlreadyExists": _ARCHIVE_EXISTS,
    "Cache.RepositoryAccessAborted": _RELOCATED,
    "Cache.EncryptionMethodMismatch": _RELOCATED,
    "Cache.RepositoryReplay": _RELOCATED,
    "Cache.RepositoryIDNotUnique": _RELOCATED,
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": _RELOCATED,
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": _RELOCATED,
}
_BY_CODE = {
    10: _EXISTS,
    12: _DAMAGED,
    13: _NOT_FOUND,
    14: _FULL,
    15: _INVALID,
    16: _INVALID,
    17: _DAMAGED,
    18: _NOT_FOUND,
    19: _EXISTS,
    20: _FULL,
    21: _DENIED,
    26: _INVALID,
    30: _ARCHIVE_EXISTS,
    31: _NO_ARCHIVE,
    42: _PASSPHRASE,
    44: _PASSPHRASE,
    50: _PASSPHRASE,
    51: _PASSPHRASE,
    52: _PASSPHRASE,
    60: _RELOCATED,
    61: _RELOCATED,
    62: _RELOCATED,
    63: _RELOCATED,
    64: _RELOCATED,
    70: _LOCKED,
    71: _LOCKED,
    72: _DENIED,
    73: _LOCKED,
    80: _UNREACHABLE,
    81: _UNREACHABLE,
    87: _UNREACHABLE,
    90: _DAMAGED,
    91: _DAMAGED,
    92: _DAMAGED,
    95: _DAMAGED,
    97: _DAMAGED,
}
_WARNINGS = range(100, 128)
# Errors of the operating system reach us as a traceback, without a name of borg's.
_BY_TEXT = (("No space left on device", _FULL), ("Read-only file system", _DENIED), ("Permission denied", _DENIED))


def failure(argv: Sequence[str], returncode: int, messages: Sequence[LogMessage], *, location: str) -> BorgError | None:
    """The error that a borg run ended with; None for exit code 0."""
    if returncode == 0:
        return None
    said = [message for message in messages if message.is_warning] or list(messages)
    text = "\n".join(message.message for message in said)
    msgid = next((message.msgid for message in reversed(said) if message.msgid in _BY_MSGID), "")
    kind = _BY_MSGID.get(msgid) or _by_code(returncode) or _by_text(text) or _OTHER
    return kind.error(
        kind.brief.format(location=location),
        evidence=describe(argv, returncode, text),
        remedy=kind.remedy.format(location=location),
        returncode=returncode,
        msgid=msgid,
    )


def _by_code(returncode: int) -> _Kind | None:
    if is_warning(returncode):
        return _INCOMPLETE
    return _BY_CODE.get(returncode)


def _by_text(text: str) -> _Kind | None:
    return next((kind for part, kind in _BY_TEXT if part in text), None)


def is_warning(returncode: int) -> bool:
    """Whether borg calls this exit code a warning: something was left out or changed while it was read."""
    return returncode == 1 or returncode in _WARNINGS
