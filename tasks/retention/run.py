"""Prune one repository: read it, plan, delete by name, free the space once. Plain functions; flows/prune.py runs them.

Nothing is deleted where `append_only` is declared, by a host that is not the maintainer, or in a dry run. Marks of
retirement are made by the owner of a source, wherever that is: they delete nothing.
"""

import logging
from datetime import datetime

from infra.borg.client import Repository
from infra.borg.marks import set_mark
from infra.borg.peek import peek_archives
from infra.borg.upkeep import compact
from infra.config.models import Config
from infra.errors import ArchiveNotFound, DomainNotFound, HypervisorError
from infra.hypervisor.connection import Domain, Hypervisor
from infra.retention.retired import Sight
from tasks.boot.known import users_of_repository
from tasks.repositories import open_repository
from tasks.retention.model import Pruned
from tasks.retention.outlook import Outlook, View, plan_repository
from tasks.retention.sources import read_holding
from tasks.upkeep import count_freed, segment_names

logger = logging.getLogger("vmborg.prune")


def look_around(config: Config, now: datetime) -> View:
    """What libvirt says of this host's VMs, and what dump hosts it has; a libvirt that is silent retires no VM."""
    configured, dump_hosts = frozenset(config.vms.overrides), frozenset(config.dumps.hosts)
    try:
        with Hypervisor.open(config.hypervisor.uri) as hypervisor:
            names = {domain.uuid: _name(domain) for domain in hypervisor.domains()}
    except HypervisorError as error:
        logger.warning("libvirt does not answer, so no VM is retired: %s", error.brief)
        return View(Sight(config.hypervisor.name, None, configured, dump_hosts), {}, now)
    sight = Sight(config.hypervisor.name, frozenset(names), configured, dump_hosts)
    return View(sight, {uuid: name for uuid, name in names.items() if name}, now)


def _name(domain: Domain) -> str:
    try:
        return domain.name
    except DomainNotFound:  # it goes away at this moment; its UUID was there all the same
        return ""


def forbidden(config: Config, name: str) -> str:
    """Why this host must not delete anything in this repository; "" if it may."""
    settings = config.repositories[name]
    key = settings.maintainer_key
    if key is not None and not key.exists():
        return f"only a host with the key {key} prunes it, and this one has not"
    if settings.append_only and key is None:
        return "append_only: true is declared: its server refuses deletions"
    maintainer = settings.maintainer or config.hypervisor.name
    if maintainer != config.hypervisor.name:
        return f"its maintainer is {maintainer}, and this is {config.hypervisor.name}"
    return ""


def _in_use(config: Config, name: str) -> str:
    vms = ", ".join(users_of_repository(config, name))
    return f"VMs run out of its archives: {vms} (vmborg boot --keep, or --discard)" if vms else ""


def look(config: Config, name: str, view: View, *, patient: bool) -> tuple[Repository, Outlook]:
    """Read a repository and plan. `patient` waits for a writer; else its lock is read past. Raises BorgError."""
    repository = open_repository(config, name, to_prune=not forbidden(config, name))
    infos = repository.archives() if patient else peek_archives(repository)
    return repository, plan_repository(config, read_holding(name, infos), view)


def prune_repository(config: Config, name: str, view: View, *, dry_run: bool = False) -> Pruned:
    """Plan, and carry it out unless something forbids it. Raises BorgError's subtypes, ConfigError, JournalError."""
    settings = config.repositories[name]
    withheld = "dry run" if dry_run else forbidden(config, name) or _in_use(config, name)
    repository, outlook = look(config, name, view, patient=not withheld)
    notes = (
        () if dry_run else _mark(repository, outlook, may_delete=not (settings.append_only and forbidden(config, name)))
    )
    if withheld:
        return Pruned(name, settings.location, outlook, withheld, notes=notes)
    doomed = [*outlook.pruned, *outlook.spent_marks]
    _delete(repository, doomed)
    freed = _compact(config, name, repository) if doomed else None
    return Pruned(name, settings.location, outlook, deleted=tuple(outlook.pruned), freed=freed, notes=notes)


def _mark(repository: Repository, outlook: Outlook, *, may_delete: bool) -> tuple[str, ...]:
    """Remember which sources are gone, and forget that of those that are back."""
    for mark, facts in outlook.new_marks:
        set_mark(repository, mark, facts)
        logger.info("%s is gone: retired from now on", facts["source"])
    if outlook.undone_marks and may_delete:
        _delete(repository, list(outlook.undone_marks))
    gone = tuple(f"{facts['source']} is gone: retired from now on" for _, facts in outlook.new_marks)
    return gone + (("a retired source is back: its mark is removed",) if outlook.undone_marks else ())


def _delete(repository: Repository, names: list[str]) -> None:
    for name in names:
        logger.info("deleting %s", name)
    try:
        repository.delete(names)
    except ArchiveNotFound as error:  # another host was faster; all the others are deleted
        logger.info("already gone: %s", error.evidence)


def _compact(config: Config, name: str, repository: Repository) -> int:
    before = segment_names(repository.location)
    freed = compact(repository)
    count_freed(config.state, name, freed=freed, segments=len(before - segment_names(repository.location)))
    return freed
