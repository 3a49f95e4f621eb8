"""An archive as a read-only file system: `borg mount`, in a process that outlives us until it is unmounted."""

import os
import time
from pathlib import Path

from infra.borg.client import Repository
from infra.borg.command import binary, environment
from infra.borg.failures import failure
from infra.borg.messages import LogMessage, parse_line
from infra.errors import BorgError
from infra.process import spawn

_START_S, _POLL_S = 600.0, 0.05
_CACHED_CHUNKS = "48"
"""Chunks that borg keeps decrypted, of 4 MiB each: a guest's reads wander, and borg's default is one a core."""


def mount_archive(
    repository: Repository, archive: str, directory: Path, *, owner: tuple[int, int], log: Path, lock: bool
) -> None:
    """Show the archive in `directory`, for `owner` (user, group) and root alone; gone when it is unmounted.

    With `lock` no other borg can write to the repository meanwhile; without, a `borg compact` takes the ground from
    under it. Raises BorgError's subtypes.
    """
    target = repository.target
    user, group = owner
    options = f"allow_other,uid={user},gid={group},umask=0077"
    argv = [binary(), "--log-json", "--lock-wait", str(target.lock_wait)]
    argv += ["--remote-path", target.remote_path] if target.remote_path else []
    argv += ["mount", "--foreground", *([] if lock else ["--bypass-lock"]), "-o", options]
    argv += [f"{target.location}::{archive}", str(directory)]
    variables = {**environment(target), "BORG_FUSE_IMPL": "pyfuse3", "BORG_MOUNT_DATA_CACHE_ENTRIES": _CACHED_CHUNKS}
    target.base_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    secrets = {"BORG_PASSPHRASE_FD": target.passphrase or ""}
    with (
        log.open("wb") as output,
        spawn(argv, env=variables, cwd="/", secrets=secrets, stdout=output, stderr=output, detached=True) as child,
    ):
        end = time.monotonic() + _START_S
        while child.poll() is None and time.monotonic() < end:
            if os.path.ismount(directory):
                child.release()
                return
            time.sleep(_POLL_S)
        code = child.poll()
    raise _failed(repository, argv, code, log)


def _failed(repository: Repository, argv: list[str], code: int | None, log: Path) -> BorgError:
    location, base_dir = repository.location, str(repository.target.base_dir)
    lines = log.read_text("utf-8", "replace").splitlines()
    messages = [found for line in lines if isinstance(found := parse_line(line), LogMessage)]
    error = failure(argv, code or 2, messages, location=location, base_dir=base_dir) if code is not None else None
    return error or BorgError(
        "borg does not mount the archive.",
        evidence="\n".join(lines[-10:]) or f"nothing was mounted within {_START_S:.0f} s",
        remedy="It needs /dev/fuse (modprobe fuse), fuse3, and the right to mount (root).",
    )
