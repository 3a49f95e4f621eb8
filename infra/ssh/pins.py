"""Pinned host keys, a file each."""

import os
from pathlib import Path

from infra.errors import HostKeyUnknown, StorageError
from infra.ssh.endpoint import HostKey, parse_host_key


def read_pin(path: Path) -> HostKey | None:
    """The pinned key; None if there is none. Raises HostKeyUnknown when the file cannot be read as one."""
    try:
        return parse_host_key(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise HostKeyUnknown(
            f"The pinned host key in {path} cannot be read.",
            evidence=str(error),
            remedy="Remove the file, compare the fingerprint again, and pin it with `vmborg dumps trust`.",
        ) from error


def write_pin(path: Path, key: HostKey) -> None:
    """Pin a key, in place of another if there is one. Raises StorageError."""
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise StorageError(
            f"The host key cannot be pinned in {path}.",
            evidence=error.strerror or str(error),
            remedy="vmborg needs to write its state directory; see that it exists and has space.",
        ) from error
