"""Hold an archive, release it, list holds; list and forget retired sources. Plain functions: they need no Prefect."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from infra.borg.client import Repository
from infra.borg.marks import set_mark
from infra.borg.peek import peek_archives
from infra.borg.upkeep import compact
from infra.config.models import Config
from infra.errors import ArchiveNotFound, UsageError, VmborgError
from infra.errors_upkeep import ArchiveHeld, NotMaintainer, NotRetired
from infra.retention.holds import HOLD, Mark, held_names, mark_facts, mark_name
from infra.retention.retired import Stage
from tasks.repositories import open_repository
from tasks.retention.outlook import SourcePlan, View
from tasks.retention.run import forbidden, look
from tasks.retention.sources import DUMP, Holding, read_holding

logger = logging.getLogger("vmborg.hold")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """One hold."""

    repository: str
    archive: str
    since: datetime
    until: datetime | None
    host: str  # who set it


@dataclass(frozen=True, slots=True)
class Gone:
    """A retired source in one repository."""

    repository: str
    kind: str  # vm or dump
    name: str
    id: str  # a VM's UUID, or `dump.NAME@HYPERVISOR`
    owner: str
    stage: Stage
    since: datetime | None
    archives: int


def hold(config: Config, archive: str, *, until: datetime | None, now: datetime) -> list[Held]:
    """Hold an archive in every repository that has it. Raises ArchiveNotFound, UsageError, BorgError's subtypes."""
    if until is not None and until <= now:
        raise UsageError(
            "A hold cannot end in the past.", evidence=f"--until {until.isoformat()}", remedy="Name a later date."
        )
    made: list[Held] = []
    for name, repository, holding in _repositories(config):
        if archive not in holding.names:
            continue
        host = config.hypervisor.name
        facts = mark_facts(HOLD, archive, host=host, until=until)
        set_mark(repository, mark_name(HOLD, archive, now), facts)
        made.append(Held(name, archive, now, until, host))
    if not made:
        raise _no_archive(archive)
    return made


def release(config: Config, archive: str) -> list[Held]:
    """End every hold of an archive. Raises ArchiveNotFound when it is not held, and BorgError's subtypes."""
    ended: list[Held] = []
    for name, repository, holding in _repositories(config):
        marks = [mark for mark in holding.marks if mark.kind == HOLD and mark.subject == archive]
        repository.delete([mark.archive for mark in marks])
        ended += [_held(name, mark) for mark in marks]
    if not ended:
        raise ArchiveNotFound(
            f"{archive} is not held.", evidence="no repository has a hold of it", remedy="See `vmborg hold`."
        )
    return ended


def holds(config: Config, now: datetime) -> tuple[list[Held], dict[str, VmborgError]]:
    """Every hold that has not ended; and why repositories could not be read, by name."""

    def held(name: str) -> list[Held]:
        marks = read_holding(name, peek_archives(open_repository(config, name))).marks
        return [_held(name, mark) for mark in marks if mark.holds(now)]

    return _everywhere(config, held)


def gone(config: Config, view: View) -> tuple[list[Gone], dict[str, VmborgError]]:
    """Every source that is retired, thinned or to be forgotten; and why repositories could not be read, by name."""

    def retired(name: str) -> list[Gone]:
        _, outlook = look(config, name, view, patient=False)
        return [_gone(name, source) for source in outlook.sources if source.stage is not Stage.ACTIVE]

    return _everywhere(config, retired)


def _everywhere(config: Config, found_in: Callable[[str], list[T]]) -> tuple[list[T], dict[str, VmborgError]]:
    """What is found in every repository; one that cannot be read does not hide the others."""
    found: list[T] = []
    failures: dict[str, VmborgError] = {}
    for name in config.repositories:
        try:
            found += found_in(name)
        except VmborgError as error:
            failures[name] = error
    return found, failures


def forget(config: Config, wanted: str, view: View) -> list[str]:
    """Delete every archive of a retired source, by its name or id; the archives that are gone now.

    Raises NotRetired (it is not gone, or there are two of this name), ArchiveHeld, NotMaintainer (this host must not
    delete there), and BorgError's subtypes. Nothing is deleted then.
    """
    plans: list[tuple[str, Repository, SourcePlan, list[str]]] = []
    held: set[str] = set()
    for name in config.repositories:
        repository, outlook = look(config, name, view, patient=True)
        marks = read_holding(name, repository.archives()).marks
        for source in outlook.sources:
            if wanted in (source.name, source.id):
                plans.append((name, repository, source, [mark.archive for mark in marks if mark.subject == source.id]))
                held |= held_names(marks, view.now)
    if len({source.id for _, _, source, _ in plans}) != 1:
        raise _not_one(wanted, sorted({source.id for _, _, source, _ in plans}))
    for name, _, source, _ in plans:
        _require_forgettable(config, name, source, held)
    deleted: list[str] = []
    for _, repository, source, spent in plans:
        names = [each.archive.name for each in source.decisions]
        logger.info("forgetting %s: %s", source.name, ", ".join(names))
        repository.delete([*names, *spent])
        compact(repository)
        deleted += names
    return deleted


def _require_forgettable(config: Config, repository: str, source: SourcePlan, held: set[str]) -> None:
    if source.stage is Stage.ACTIVE:
        kind, end = ("dump host", "Take it out of `dumps.hosts`") if source.kind == DUMP else ("VM", "Undefine the VM")
        raise NotRetired(
            f"The {kind} {source.name!r} is not retired; its archives stay.",
            evidence=f"repository {repository}: its owner {source.owner or '(unknown)'} has not called it gone",
            remedy=f"{end}, and run `vmborg prune` on its owner first.",
        )
    pinned = [each.archive.name for each in source.decisions if each.archive.name in held]
    if pinned:
        raise ArchiveHeld(
            f"Archives of {source.name!r} are held.",
            evidence="\n".join(pinned),
            remedy=f"Release each first: vmborg release {pinned[0]}",
        )
    why = forbidden(config, repository)
    if why:
        raise NotMaintainer(
            f"This host must not delete in the repository {repository}.",
            evidence=why,
            remedy="Do it on the maintainer of this repository.",
        )


def _repositories(config: Config) -> Iterator[tuple[str, Repository, Holding]]:
    for name in config.repositories:
        repository = open_repository(config, name)
        yield name, repository, read_holding(name, peek_archives(repository))


def _held(repository: str, mark: Mark) -> Held:
    return Held(repository, mark.subject, mark.time, mark.until, mark.host)


def _gone(repository: str, source: SourcePlan) -> Gone:
    return Gone(
        repository=repository,
        kind=source.kind,
        name=source.name,
        id=source.id,
        owner=source.owner,
        stage=source.stage,
        since=source.since,
        archives=len(source.decisions),
    )


def _no_archive(archive: str) -> ArchiveNotFound:
    return ArchiveNotFound(
        f"There is no archive {archive!r}.",
        evidence="no repository of the configuration has one of this name",
        remedy="See `vmborg list`.",
    )


def _not_one(wanted: str, ids: list[str]) -> NotRetired:
    if ids:
        return NotRetired(
            f"Several VMs or dump hosts are called {wanted!r}.",
            evidence="\n".join(ids),
            remedy="Name one of these ids instead, in both places.",
        )
    return NotRetired(
        f"There is no retired VM or dump host {wanted!r}.",
        evidence="no repository has archives of it",
        remedy="See `vmborg retire`.",
    )
