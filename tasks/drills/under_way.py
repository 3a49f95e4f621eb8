"""Drills under way: written down before anything is made, so that what a dead one left is taken away.

A file a drill, below `state_dir/drills/open`, and a lock of the kernel that tells a drill that works from one that
died. Nothing is taken away that does not bear the drill's own name.
"""

import logging
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from infra.config.models import Config
from infra.errors import DomainBusy, DomainNotFound, JournalError, VmborgError
from infra.errors_drills import DrillLeft
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.device_xml import LOG_DIR
from infra.journal.facts import read_facts, write_facts
from infra.journal.locks import domain_lock
from infra.model import StateDir
from tasks.restore.workspace import leftovers, remove_tree

logger = logging.getLogger("vmborg.drill")

PREFIX = "vmborg-drill-"
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{8}}")


@dataclass(frozen=True, slots=True)
class UnderWay:
    """One drill: of which VM, and what is made for it."""

    vm: str
    uuid: str  # of the throw-away domain
    scratch: Path

    @property
    def name(self) -> str:
        """Of the throw-away domain, and of its folder."""
        return f"{PREFIX}{self.uuid[:8]}"


@contextmanager
def under_way(config: Config, vm: str) -> Generator[UnderWay]:
    """A drill of `vm`; at the end of the block nothing of it is left on the host.

    Raises JournalError before anything is made; DrillLeft when something could not be taken away.
    """
    uuid = str(uuid4())
    drill = UnderWay(vm, uuid, config.drills.scratch / f"{PREFIX}{uuid[:8]}")
    with domain_lock(config.state.locks, uuid, vm):
        write_facts(_path(config.state, uuid), {"vm": vm, "uuid": uuid, "scratch": str(drill.scratch)})
        try:
            yield drill
        finally:
            take_away(config, drill)


def take_away(config: Config, drill: UnderWay) -> list[str]:
    """Stop the drill's domain and delete its files; what was done. The caller holds its lock. Raises DrillLeft."""
    done: list[str] = []
    try:
        done += _end_domain(config, drill)
        if drill.scratch.exists():
            remove_tree(drill.scratch)
            done.append(f"deleted {drill.scratch}")
        for path in leftovers([config.state_dir]):
            shutil.rmtree(path, ignore_errors=True)  # texts of an archive, of a restore that was killed
        for log in Path(LOG_DIR).glob(f"{drill.name}.log*"):
            log.unlink(missing_ok=True)
        _path(config.state, drill.uuid).unlink(missing_ok=True)
        (config.state.locks / f"{drill.uuid}.lock").unlink(missing_ok=True)  # no other drill will have this UUID
    except (VmborgError, OSError) as error:
        raise DrillLeft(
            f"What the drill of {drill.vm!r} made could not be taken away.",
            evidence=str(error),
            remedy=f"Mend what the evidence names and run `vmborg recover`; it is {drill.name} in {drill.scratch}.",
        ) from error
    return done


def _end_domain(config: Config, drill: UnderWay) -> list[str]:
    with Hypervisor.open(config.hypervisor.uri) as hypervisor:
        try:
            domain = hypervisor.by_uuid(drill.uuid)
            if domain.name != drill.name:
                return []
            domain.destroy()
        except DomainNotFound:
            return []
    return [f"ended the throw-away VM {drill.name}"]


@dataclass(frozen=True, slots=True)
class TakenAway:
    """What became of a drill that was found open."""

    drill: UnderWay
    actions: tuple[str, ...] = ()
    error: str = ""
    busy: bool = False  # it is at work; it was left alone


def take_away_dead(config: Config, *, only: str | None = None) -> list[TakenAway]:
    """Clean up after every drill that died, or those of one VM (`only`). One that fails does not keep the next from it.

    Raises JournalError if an entry cannot be read, after all others were dealt with.
    """
    done: list[TakenAway] = []
    problems: list[JournalError] = []
    for path in _paths(config):
        try:
            drill = _open_drill(path)
        except JournalError as error:
            problems.append(error)
            continue
        if only in {None, drill.vm, drill.uuid}:
            done.append(_take_away_dead(config, drill))
    for problem in problems:
        if only is None:
            raise problem
        logger.error("%s", problem)
    return done


def open_drills(config: Config) -> list[UnderWay]:
    """The drills that are at work, or died. Raises JournalError if an entry cannot be read."""
    return [_open_drill(path) for path in _paths(config)]


def _paths(config: Config) -> list[Path]:
    return sorted((config.state.drills / "open").glob("*.json"))


def _take_away_dead(config: Config, drill: UnderWay) -> TakenAway:
    try:
        with domain_lock(config.state.locks, drill.uuid, drill.vm):
            actions = take_away(config, drill)
    except DomainBusy as error:
        return TakenAway(drill, error=str(error), busy=True)
    except VmborgError as error:
        logger.exception("the drill of %s could not be cleaned up", drill.vm)
        return TakenAway(drill, error=str(error))
    return TakenAway(drill, tuple(actions) or ("nothing of it was left",))


def _open_drill(path: Path) -> UnderWay:
    """Raises JournalError for what would take something else away than a drill's own."""
    facts = read_facts(path)
    uuid, scratch = str(facts.get("uuid", "")), Path(str(facts.get("scratch", "")))
    drill = UnderWay(str(facts.get("vm", "")), uuid, scratch)
    if f"{uuid}.json" != path.name or not _is_uuid(uuid) or not _NAME.fullmatch(scratch.name):
        raise _unreadable(path)
    if scratch.name != drill.name or not scratch.is_absolute() or scratch.is_symlink():
        raise _unreadable(path)
    return drill


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _unreadable(path: Path) -> JournalError:
    return JournalError(
        f"The file {path} of a drill means nothing to this vmborg.",
        evidence="its UUID and scratch folder do not belong together",
        remedy=f"Look for domains and folders called {PREFIX}*, end and delete them, then remove the file.",
    )


def _path(state: StateDir, uuid: str) -> Path:
    return state.drills / "open" / f"{uuid}.json"
