"""What is remembered of each VM's disks between backups, and which archives turned out to be doubtful."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from infra.errors import JournalError
from infra.journal.facts import read_facts, write_facts
from infra.journal.store import make_private, write_durably
from infra.model import ReadMode, StateDir
from infra.segments.decide import DiskReading, following_state, found_stale
from infra.segments.state import UNKNOWN, DiskState, VmState, read_state, render_state
from tasks.health import Finding, Health

if TYPE_CHECKING:
    from tasks.job import BackupJob
    from tasks.reading import Reading

logger = logging.getLogger("vmborg.backup")

_SUSPECT = ".suspect.json"
_MOST_ARCHIVES = 1000


def state_path(state: StateDir, uuid: str) -> Path:
    """The file of one VM."""
    return state.segments / f"{uuid}.state"


def needed_checkpoints(state: StateDir, uuid: str) -> frozenset[str]:
    """The checkpoints that the next backup of a VM goes by."""
    try:
        found = read_state(state_path(state, uuid))
    except ValueError:
        return frozenset()
    return found.checkpoints if found else frozenset()


def remember(job: "BackupJob", reading: "Reading", *, archive: str, shut_off: bool) -> str:
    """After an archive was verified: go on from here the next time. What is to be told of stale segments, or "".

    It stays as it was when it cannot be written: the next run goes by the former checkpoint then, which is kept.
    """
    if not reading.disks:
        return _forget(job, reading)
    former = reading.state or VmState()
    disks: dict[str, DiskState] = {}
    doubts: list[str] = []
    spoiled = False
    for each in reading.disks:
        seen = _seen(reading, each)
        stale = sorted({*each.stale, *found_stale(each, seen)})
        if stale:
            doubts.append(f"{each.target}: {len(stale)} segments had changed without a dirty bit, such as {stale[0]}")
        if stale and not each.full:  # found too late: others of it may be stale in this archive
            spoiled = True
            continue
        disks[each.target] = following_state(
            each, seen, checkpoint=reading.checkpoint, shut_off=shut_off, stale=bool(stale)
        )
    in_full = all(each.full for each in reading.disks)
    archives = (archive,) if in_full else (*former.archives, archive)[-_MOST_ARCHIVES:]
    if doubts:
        _suspect(job, (*former.archives, archive) if spoiled else former.archives, "; ".join(doubts))
    _write(job, VmState(disks, archives))
    reading.state = VmState(disks, archives)
    return "; ".join(doubts)


def _seen(reading: "Reading", disk: DiskReading) -> Any:
    if reading.served is not None:
        return reading.served.seen[disk.target]
    unknown = disk.known[:0]
    unknown.extend([UNKNOWN] * len(disk.generations))
    return unknown


def _write(job: "BackupJob", state: VmState) -> None:
    try:
        make_private(job.state.segments)
        write_durably(state_path(job.state, job.uuid), render_state(state))
    except OSError as error:
        raise JournalError(
            "What is to be remembered of the disks cannot be written; the next backup goes by the one before.",
            evidence=str(error),
            remedy="Look at the space of state_dir.",
        ) from error


def _forget(job: "BackupJob", reading: "Reading") -> str:
    """With `read: whole` nothing is remembered. Otherwise what hinders segments now may be gone the next time."""
    if job.policy.read is ReadMode.WHOLE and reading.state is not None:
        with suppress(OSError):
            state_path(job.state, job.uuid).unlink(missing_ok=True)
        reading.state = None
    return ""


def _suspect(job: "BackupJob", archives: Iterable[str], why: str) -> None:
    path = job.state.segments / f"{job.uuid}{_SUSPECT}"
    names = list(archives)
    logger.error("archives of %s may hold stale data: %s (%s)", job.name, ", ".join(names) or "none", why)
    known = _archives(read_facts(path))
    write_facts(path, {"vm": job.name, "archives": known | dict.fromkeys(names, why)})


def suspects(state: StateDir) -> dict[str, str]:
    """Every archive of this host's VMs that may hold stale data, and why. Raises JournalError."""
    found: dict[str, str] = {}
    for path in sorted(state.segments.glob(f"*{_SUSPECT}")):
        found |= _archives(read_facts(path))
    return found


def suspect_findings(state: StateDir, existing: Iterable[str]) -> list[Finding]:
    """A finding for the archives that may hold stale data and are there still."""
    try:
        found = suspects(state)
    except JournalError as error:
        return [Finding(Health.UNKNOWN, "archives", "stale data", error.brief, error.remedy)]
    names = sorted(set(existing) & found.keys())
    if not names:
        return []
    text = f"may hold stale data: {', '.join(names[:3])}{' and others' if len(names) > 3 else ''} ({found[names[0]]})"  # noqa: PLR2004
    remedy = "docs/operations.md, 'Suspect archives'. Later archives of these VMs were read in full."
    return [Finding(Health.CRITICAL, "archives", "stale data", text, remedy)]


def _archives(facts: dict[str, Any]) -> dict[str, str]:
    found = facts.get("archives")
    return cast("dict[str, str]", found) if isinstance(found, dict) else {}
