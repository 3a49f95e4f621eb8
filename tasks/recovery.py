"""Put a domain that a run left on overlays back. One plain function for everybody.

The flow's own `finally`, Prefect's hooks, `vmborg recover`, the next backup and the reconcile flow all end here, so
there is one way back and it is tested from every side. It needs the journal and libvirt, not Prefect.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace

from infra.borg.client import Repository
from infra.config.models import Config
from infra.errors import ArchiveNotFound, DomainBusy, DomainNotFound, HypervisorError, VmborgError
from infra.hypervisor.checkpoints import drop_checkpoints
from infra.hypervisor.commit_live import Deadlines
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.put_back import put_back
from infra.journal.locks import domain_lock
from infra.journal.store import Journal
from infra.model import JournalEntry, PutBackReport, StateDir
from tasks.memory import needed_checkpoints
from tasks.repositories import open_repository

logger = logging.getLogger("vmborg.recovery")

_DROP_LOCK_WAIT_S, _DROP_TIMEOUT_S = 5, 15.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of one open journal entry."""

    uuid: str
    name: str
    actions: tuple[str, ...] = ()
    error: str = ""  # empty when the domain is back on its bases
    busy: bool = False  # a live run holds the domain; it was left alone
    closed: bool = False  # its journal entry was closed just now


def close_run(config: Config, hypervisor: Hypervisor, journal: Journal, entry: JournalEntry) -> PutBackReport:
    """Put the domain of this journal entry back and close the entry. The caller holds the domain's lock.

    Raises CommitFailed, RecoveryFailed, ThawUnconfirmed, HypervisorError; the entry stays open then.
    """
    policy = config.policy(entry.name)
    report = put_back(
        hypervisor,
        entry,
        deadlines=Deadlines(
            policy.commit_deadline, policy.pivot_deadline, policy.commit_pause, int(policy.commit_bandwidth)
        ),
        on_action=lambda action: logger.info("%s: %s", entry.name, action),
        save=journal.write,
    )
    journal.close(entry.uuid)
    return report


def _drop_checkpoint(config: Config, hypervisor: Hypervisor, entry: JournalEntry) -> tuple[str, ...]:
    """Remove the checkpoint that a dead run made, unless its backup was good; what was done."""
    try:
        needed = needed_checkpoints(config.state, entry.uuid)
        gone = drop_checkpoints(hypervisor.by_uuid(entry.uuid), keep=needed, only=entry.checkpoint)
    except HypervisorError as error:
        logger.warning("the checkpoint %s was not looked for: %s", entry.checkpoint, error.brief)
        return ()
    return tuple(f"removed the checkpoint {name}" for name in gone)


def recover_entry(config: Config, hypervisor: Hypervisor, journal: Journal, entry: JournalEntry) -> Recovery:
    """`close_run`, and drop the archive that the dead run left unfinished. The caller holds the domain's lock.

    Raises what `close_run` raises.
    """
    report = close_run(config, hypervisor, journal, entry)
    actions = (*report.actions, *_drop_checkpoint(config, hypervisor, entry))
    return _and_dropped(config, entry, Recovery(entry.uuid, entry.name, actions))


def _and_dropped(config: Config, entry: JournalEntry, recovery: Recovery) -> Recovery:
    actions = (*recovery.actions, *drop_unfinished(config, entry))
    return replace(recovery, actions=actions or ("nothing had to be undone",))


def drop_unfinished(config: Config, entry: JournalEntry) -> list[str]:
    """Delete the dead run's unfinished archive wherever borg kept one; what was done."""
    actions: list[str] = []
    names = (entry.repository, *entry.replicas)
    for name in names if entry.archive else ():
        if name not in config.repositories:
            continue
        try:
            repository = open_repository(config, name)
        except VmborgError as error:
            logger.warning("the unfinished archive %s was not looked for in %s: %s", entry.archive, name, error.brief)
            continue
        if drop_archive(repository, entry.archive):
            where = f" in {name}" if len(names) > 1 else ""
            actions.append(f"deleted the unfinished archive {entry.archive}{where}")
    return actions


def drop_archive(repository: Repository, archive: str) -> bool:
    """Delete an unfinished archive, if borg kept it. Whether there was one.

    A repository that does not answer soon is only logged: an unfinished archive is never listed as good, and the next
    backup deletes it.
    """
    try:
        repository.delete([archive], lock_wait=_DROP_LOCK_WAIT_S, timeout=_DROP_TIMEOUT_S)
    except ArchiveNotFound:
        return False
    except VmborgError as error:
        logger.warning("the unfinished archive %s was not deleted in %s: %s", archive, repository.name, error.brief)
        return False
    return True


def recover_domains(config: Config, *, only: str | None = None) -> list[Recovery]:
    """Recover every domain with an open journal entry, or the one named (or with the UUID) `only`.

    One domain's failure does not keep the next from being put back, nor does one that takes long, nor a repository that
    hangs; failures are told in the Recovery. Raises HypervisorUnreachable, and JournalError if a journal file cannot be
    read (after all others were dealt with).
    """
    journal = Journal(StateDir(config.state_dir).journal)
    found = journal.entries()
    entries = [entry for entry in found.entries if only in {None, entry.name, entry.uuid}]
    recovered: list[Recovery] = []
    if found.entries:
        with Hypervisor.open(config.hypervisor.uri) as hypervisor:
            if only is not None and not entries:  # the entry has the name that the domain had
                entries = [entry for entry in found.entries if entry.uuid == _uuid_of(hypervisor, only)]
        recovered = _beside_each_other(lambda entry: _put_back(config, journal, entry), entries)
        recovered = [
            _and_dropped(config, entry, recovery) if recovery.closed else recovery
            for entry, recovery in zip(entries, recovered, strict=True)
        ]
    for problem in found.problems:
        if only is None:
            raise problem
        logger.error("%s", problem)
    return recovered


def _uuid_of(hypervisor: Hypervisor, vm: str) -> str | None:
    try:
        return hypervisor.find(vm).uuid
    except DomainNotFound:
        return None


def _beside_each_other(work: Callable[[JournalEntry], Recovery], entries: Sequence[JournalEntry]) -> list[Recovery]:
    """Each in a thread of its own, so many at a time. The threads do not outlive us: a signal ends us as ever."""
    turns = threading.BoundedSemaphore(_AT_ONCE)
    results: dict[str, Recovery] = {}

    def run(entry: JournalEntry) -> None:
        with turns:
            try:
                results[entry.uuid] = work(entry)
            except Exception as error:
                logger.exception("%s: the recovery ended unexpectedly", entry.name)
                results[entry.uuid] = Recovery(entry.uuid, entry.name, error=f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=copy_context().run, args=(run, entry), name=f"recover {entry.name}", daemon=True)
        for entry in entries
    ]  # the context: log lines belong to the Prefect run that is current here
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[entry.uuid] for entry in entries]


def _put_back(config: Config, journal: Journal, entry: JournalEntry) -> Recovery:
    """Raises nothing that a domain could be the reason of.

    On a connection of its own: on a shared one a call for a qemu that hangs held up those for others (libvirt 9.0).
    """
    try:
        with (
            domain_lock(StateDir(config.state_dir).locks, entry.uuid, entry.name),
            Hypervisor.open(config.hypervisor.uri) as hypervisor,
        ):
            current = journal.read(entry.uuid)
            if current is None:
                return Recovery(entry.uuid, entry.name, ("its run ended by itself",))
            return _put_back_held(config, hypervisor, journal, current)
    except DomainBusy as error:  # only the lock: what libvirt calls busy is told by _put_back_held
        return Recovery(entry.uuid, entry.name, error=str(error), busy=True)
    except (VmborgError, OSError) as error:
        logger.exception("%s was not looked at", entry.name)
        return Recovery(entry.uuid, entry.name, error=str(error))


def _put_back_held(config: Config, hypervisor: Hypervisor, journal: Journal, entry: JournalEntry) -> Recovery:
    try:
        report = close_run(config, hypervisor, journal, entry)
    except (VmborgError, OSError, ValueError) as error:
        logger.exception("%s could not be put back", entry.name)
        return Recovery(entry.uuid, entry.name, error=str(error))
    actions = (*report.actions, *_drop_checkpoint(config, hypervisor, entry))
    return Recovery(entry.uuid, entry.name, actions, closed=True)
