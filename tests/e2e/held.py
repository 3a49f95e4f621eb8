"""Hold a backup in the middle of its create step, by stopping borg, to look at it from all sides."""

import os
import re
import signal
import time
from pathlib import Path

from tests.guests import wait_for


def numbers() -> list[int]:
    """All process ids."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*")]


def children(pid: int) -> list[int]:
    """The process ids of its children."""
    return [each for each in numbers() if parent(each) == pid]


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(each for child in children(pid) for each in descendants(child))]


def command(pid: int) -> list[str]:
    """The argv of a process; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def environment(pid: int) -> str:
    """The environment of a process as it was started."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def parent(pid: int) -> int:
    """The parent's process id, 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def borg_creating(repository: Path | str) -> int:
    """The process id of a `borg create` into this repository, 0 for none."""
    for pid in numbers():
        argv = command(pid)
        if "create" in argv and any(argument.startswith(f"{repository}::") for argument in argv):
            return pid
    return 0


def reads(pid: int, image: Path, target: str = "") -> bool:
    """Whether a process has this image open, or a segment of the disk `target`."""
    try:
        opened = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    segment = re.compile(rf"(.*/)?disks/{target}/[0-9a-f]{{8}}") if target else None
    return str(image) in opened or (segment is not None and any(map(segment.fullmatch, opened)))


def hold_borg(repository: Path | str, image: Path, *, target: str = "", timeout: float = 90) -> int:
    """Stop borg while it reads this image, or segments of the disk `target`; return its process id.

    Undone by `let_go`. It goes step by step from its start on: on a busy machine it could read the whole image between
    two looks.
    """
    pid = wait_for(lambda: borg_creating(repository), timeout=timeout, what="borg create", interval=0.01)
    os.kill(pid, signal.SIGSTOP)

    def reading() -> bool:
        if reads(pid, image, target):
            return True
        assert not gone(pid), f"borg ended before it read {image}"
        let_go(pid)
        time.sleep(0.002)
        os.kill(pid, signal.SIGSTOP)
        return False

    wait_for(reading, timeout=timeout, what=f"borg at {image}", interval=0)
    return pid


def let_go(pid: int) -> None:
    """Let a stopped process go on."""
    os.kill(pid, signal.SIGCONT)


def gone(pid: int) -> bool:
    """Whether it ended; a zombie counts as ended."""
    return not command(pid)
