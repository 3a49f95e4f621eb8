"""The words of a drill. Bytes and seconds."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a drill says of an archive."""

    PROVEN = "proven"
    FAILED = "failed"
    NOT_PROVABLE = "not provable"  # this host cannot try it; nothing is said of the archive


@dataclass(frozen=True, slots=True)
class Candidate:
    """A VM, and the archive that would be tried."""

    vm: str
    uuid: str
    archive: str
    repository: str
    size: int  # what the guest sees of its disks; 0 if it is not known


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one drill."""

    vm: str
    uuid: str
    archive: str
    repository: str
    verdict: Verdict
    reason: str  # what was shown, or what went wrong
    remedy: str = ""
    judged_by: str = ""  # agent, console, screen
    restore_s: float = 0.0
    boot_s: float | None = None
    total_s: float = 0.0
    size: int = 0  # of the restored images, holes included
    memory: int = 0
    probes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    picture: str = ""  # path of the PNG of its screen
    console: str = ""  # the end of what its serial port printed
