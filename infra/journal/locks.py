"""One run a domain: a lock file that the kernel lets go when its holder dies.

Strategy: flock(2) on a file a domain, taken without waiting, held from before the journal is read until after
it is closed. flock belongs to the open file, so a dead holder never leaves it behind, and two threads of one
process shut each other out too. The descriptor is closed on exec: a borg that outlives its run does not hold
the domain. The file stays (to unlink it would let two holders lock two files of one name); what it says is
for people.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from infra.errors import DomainBusy, JournalError

_EVIDENCE_BYTES = 200


@contextmanager
def domain_lock(directory: Path, uuid: str, name: str) -> Generator[None]:
    """Hold the domain for the block. `name` is for the error's text.

    Raises DomainBusy, saying who holds it since when; JournalError when the lock file cannot be used.
    """
    path = directory / f"{uuid}.lock"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JournalError(
            f"The lock of {name!r} cannot be used.",
            evidence=f"{path}: {error.strerror or error}",
            remedy="vmborg needs to write its state directory; see that it exists and has space.",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(descriptor, path, name) from error
        with suppress(OSError):  # a full disk keeps the lock from saying who holds it, not from being held
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _signature(), 0)
        yield
    finally:
        os.close(descriptor)


def _signature() -> bytes:
    return f"pid {os.getpid()} since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode()


def _busy(descriptor: int, path: Path, name: str) -> DomainBusy:
    holder = os.pread(descriptor, _EVIDENCE_BYTES, 0).decode("utf-8", "replace").strip()
    return DomainBusy(
        f"The VM {name!r} is already being backed up or recovered.",
        evidence=f"{path}: held by {holder or 'another run'}",
        remedy="Wait for that run to end, or end it; the lock goes with its process.",
    )
