"""Who works on a domain now, told without touching its lock: to take it, even for a moment, would make a run fail."""

from pathlib import Path

_LOCKS = Path("/proc/locks")  # proc(5): number, kind, ADVISORY, access, pid, device:device:inode, start, end


def holder(directory: Path, uuid: str) -> str:
    """Who holds the domain's lock, in the words that it wrote there ("pid 7 since …"); "" when nobody does."""
    path = directory / f"{uuid}.lock"
    try:
        inode = path.stat().st_ino
        words = path.read_text("utf-8", "replace").strip()
        locks = _LOCKS.read_text("ascii", "replace")
    except OSError:
        return ""
    return words or "a run" if any(_is_on(line, inode) for line in locks.splitlines()) else ""


def _is_on(line: str, inode: int) -> bool:
    # The device is left out: on some file systems (btrfs, overlayfs) stat(2) gives another number than this table.
    fields = line.split()
    return "FLOCK" in fields and any(field.endswith(f":{inode}") for field in fields)
