"""The qemu process of a domain, which tells one run of it from the next.

libvirt's own number does not: it begins at 1 again when the host was booted, and when libvirtd is started while no
domain runs (tried: libvirt 9.0). libvirt starts qemu with the domain's UUID (-uuid).
"""

from itertools import pairwise
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TIME = 19  # of the fields after the command's name in /proc/PID/stat: proc_pid_stat(5), field 22


def life_of(uuid: str, *, proc: Path = Path("/proc")) -> str:
    """The boot, the process id and the start time of the qemu that runs this domain; "" when there is none."""
    for process in proc.iterdir():
        if process.name.isdigit() and _runs(process, uuid):
            try:
                stat = (process / "stat").read_text("ascii", "replace")
            except OSError:  # it ended
                continue
            start = stat.rpartition(")")[2].split()[_START_TIME]
            return f"{_BOOT_ID.read_text('ascii').strip()} {process.name} {start}"
    return ""


def _runs(process: Path, uuid: str) -> bool:
    try:
        argv = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(pair == (b"-uuid", uuid.encode()) for pair in pairwise(argv))
