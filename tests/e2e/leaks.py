"""Where a secret could have come to light: files that anybody may read, and files at all."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from infra.process import run

_PLACES = ("/tmp", "/var", "/run", "/etc", "/root", "/home", "/srv", "/dev/shm")
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def readable_by_nobody(since: float) -> list[Path]:
    """Files that a user without any right may read and that were written since then (seconds of the epoch)."""
    find = ["find", *_PLACES, "-xdev", "-type", "f", "-readable", "-newermt", f"@{since:.0f}", "-size", "-64M"]
    found = run([*_NOBODY, *find, "-print0"], timeout=120, check=False).stdout
    return [Path(name) for name in found.split("\0") if name]


def holding(secrets: Mapping[str, str], files: Iterable[Path]) -> dict[str, list[str]]:
    """The files that hold one of these secrets, by the secret's name."""
    found: dict[str, list[str]] = {}
    for path in files:
        try:
            content = path.read_bytes()
        except OSError:  # it went away meanwhile
            continue
        for name, secret in secrets.items():
            if secret.encode() in content:
                found.setdefault(name, []).append(str(path))
    return found
