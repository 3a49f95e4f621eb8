"""Put a domain that a run left on overlays back. One plain function for everybody.

The flow's own `finally`, Prefect's hooks, `vmborg recover`, the next backup and the reconcile flow all end here, so
there is one way back and it is tested from every side. It needs the journal and libvirt, not Prefect.
"""

import logging
from dataclasses import dataclass

from infra.config.models import Config
from infra.errors import BorgError, DomainBusy, DomainNotFound, VmborgError
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.put_back import put_back
from infra.journal.locks import domain_lock
from infra.journal.store import Journal
from infra.model import JournalEntry, PutBackReport, StateDir
from tasks.repositories import open_repository

logger = logging.getLogger("vmborg.recovery")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of one open journal entry."""

    uuid: str
    name: str
    actions: tuple[str, ...] = ()
    error: str = ""  # empty when the domain is back on its bases
    busy: bool = False  # a live run holds the domain; it was left alone


def close_run(config: Config, hypervisor: Hypervisor, journal: Journal, entry: JournalEntry) -> PutBackReport:
    """Put the domain of this journal entry back and close the entry. The caller holds the domain's lock.

    Raises CommitFailed, RecoveryFailed, ThawUnconfirmed, HypervisorError; the entry stays open then.
    """
    policy = config.policy(entry.name)
    report = put_back(
        hypervisor,
        entry,
        commit_deadline=policy.commit_deadline,
        pivot_deadline=policy.pivot_deadline,
        on_action=lambda action: logger.info("%s: %s", entry.name, action),
        save=journal.write,
    )
    journal.close(entry.uuid)
    return report


def recover_entry(config: Config, hypervisor: Hypervisor, journal: Journal, entry: JournalEntry) -> Recovery:
    """`close_run`, and drop the archive that the dead run left unfinished. The caller holds the domain's lock.

    Raises what `close_run` raises.
    """
    report = close_run(config, hypervisor, journal, entry)
    actions = [*report.actions, *_drop_unfinished(config, entry)]
    return Recovery(entry.uuid, entry.name, tuple(actions) or ("nothing had to be undone",))


def _drop_unfinished(config: Config, entry: JournalEntry) -> list[str]:
    """Delete the dead run's unfinished archive, if borg kept one.

    A repository that cannot be asked now is only logged: an unfinished archive is never listed as good.
    """
    if not entry.archive or entry.repository not in config.repositories:
        return []
    try:
        repository = open_repository(config, entry.repository)
        if not repository.archives(entry.archive):
            return []
        repository.delete([entry.archive])
    except BorgError as error:
        logger.warning("%s: the unfinished archive %s was not looked for: %s", entry.name, entry.archive, error.brief)
        return []
    return [f"deleted the unfinished archive {entry.archive}"]


def recover_all(config: Config, *, only: str | None = None) -> list[Recovery]:
    """Recover every domain with an open journal entry, or the one named (or with the UUID) `only`.

    One domain's failure does not keep the next from being put back; it is told in its Recovery. Raises
    HypervisorUnreachable, and JournalError if a journal file cannot be read (after all others were dealt with).
    """
    journal = Journal(StateDir(config.state_dir).journal)
    found = journal.entries()
    entries = [entry for entry in found.entries if only in {None, entry.name, entry.uuid}]
    recovered: list[Recovery] = []
    if found.entries:
        with Hypervisor.open(config.hypervisor.uri) as hypervisor:
            if only is not None and not entries:  # the entry has the name that the domain had
                entries = [entry for entry in found.entries if entry.uuid == _uuid_of(hypervisor, only)]
            recovered = [_recover_locked(config, hypervisor, journal, entry) for entry in entries]
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


def _recover_locked(config: Config, hypervisor: Hypervisor, journal: Journal, entry: JournalEntry) -> Recovery:
    try:
        with domain_lock(StateDir(config.state_dir).locks, entry.uuid, entry.name):
            current = journal.read(entry.uuid)
            if current is None:
                return Recovery(entry.uuid, entry.name, ("its run ended by itself",))
            return _recover_held(config, hypervisor, journal, current)
    except DomainBusy as error:  # only the lock: what libvirt calls busy is told by _recover_held
        return Recovery(entry.uuid, entry.name, error=str(error), busy=True)


def _recover_held(config: Config, hypervisor: Hypervisor, journal: Journal, entry: JournalEntry) -> Recovery:
    try:
        return recover_entry(config, hypervisor, journal, entry)
    except VmborgError as error:
        logger.exception("%s could not be put back", entry.name)
        return Recovery(entry.uuid, entry.name, error=str(error))
