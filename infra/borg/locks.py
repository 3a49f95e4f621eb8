"""Who holds a lock that borg could not get, read from the lock itself.

borg's lock is a directory with a file `HOST@MAC.PID-THREAD` for its one writer, and beside it `lock.roster`, JSON that
names its readers (borg docs: internals/data-structures, Locks). A remote repository's lock is out of our sight.
"""

import json
import re
from pathlib import Path
from typing import Any, cast

_PLACE = re.compile(r"the lock (?P<path>/.+?) \(timeout\)")
_HOLDER = re.compile(r"(?P<host>.+)\.(?P<pid>\d+)-[0-9a-fA-F]+")


def holders(message: str) -> list[str]:
    """The processes that hold the lock which `message` names; none if it cannot be told. Raises nothing."""
    found = _PLACE.search(message)
    if found is None:
        return []
    path = Path(found["path"])
    return [*_writers(path), *_readers(path.with_name("lock.roster"))]


def _writers(path: Path) -> list[str]:
    try:
        names = [entry.name for entry in path.iterdir()]
    except OSError:  # released meanwhile, or not ours to see
        return []
    parts = (_HOLDER.fullmatch(name) for name in names)
    return [_describe(part["pid"], part["host"]) for part in parts if part is not None]


def _readers(path: Path) -> list[str]:
    try:
        roster: Any = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        shared = cast("list[tuple[str, int, int]]", roster.get("shared", []))
        return [_describe(str(pid), host) for host, pid, _ in shared]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def _describe(pid: str, host: str) -> str:
    return f"held by process {pid} on {host.partition('@')[0]}"
