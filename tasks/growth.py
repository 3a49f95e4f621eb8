"""Is the new data of a backup far above its own history? Ransomware, re-encryption or lost deduplication look so.

Each backup's figure is kept below `state_dir`, one file a VM or dump host, so that the verdict needs nothing but this
host.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, cast

from infra.borg.names import encode
from infra.config.upkeep import CheckConfig
from infra.errors import JournalError
from infra.journal.facts import read_facts, write_facts
from infra.model import StateDir
from tasks.units import size
from tasks.upkeep import stamp

logger = logging.getLogger("vmborg.growth")

_KEPT = 60
_ENOUGH = 3  # earlier backups without which nothing is called usual; the first one stores everything


def judge(history: Sequence[int], stored: int, policy: CheckConfig) -> str:
    """What is unexpected about `stored` bytes after this history, oldest first; "" for nothing. Pure."""
    if len(history) < _ENOUGH or stored <= policy.growth_floor:
        return ""
    usual = int(median(history))
    if stored <= policy.growth_factor * usual:
        return ""
    return f"{size(stored)} of new data, {size(usual)} are usual: encrypted, re-written, or deduplication was lost"


def dump_key(host: str) -> str:
    """What a dump host's history goes by, as a VM's does by its UUID."""
    return f"dump.{encode(host)}"


def record(
    state: StateDir, policy: CheckConfig, *, source: str, name: str, archive: str, stored: int, when: datetime
) -> str:
    """Judge a backup by the earlier ones and remember it. What is unexpected, or "".

    A verdict that cannot be kept does not spoil a good archive: it is logged, and not known.
    """
    try:
        verdict = _record(_path(state, source), policy, name=name, archive=archive, stored=stored, when=when)
    except JournalError as error:
        logger.warning("the growth of %s is not known: %s", name, error.brief)
        return ""
    if verdict:
        logger.warning("unexpected growth of %s: %s", name, verdict)
    return verdict


def _record(path: Path, policy: CheckConfig, *, name: str, archive: str, stored: int, when: datetime) -> str:
    past = _entries(read_facts(path))
    verdict = judge([each["stored"] for each in past], stored, policy)
    entry = {"archive": archive, "stored": stored, "time": stamp(when), "unexpected": verdict}
    write_facts(path, {"vm": name, "backups": [*past, entry][-_KEPT:]})
    return verdict


def new_data(state: StateDir, source: str) -> dict[str, int]:
    """The new data in bytes of the last backups of this source on this host, by archive. Raises JournalError."""
    return {str(each["archive"]): int(each["stored"]) for each in _entries(read_facts(_path(state, source)))}


def unexpected(state: StateDir, source: str) -> str:
    """What was unexpected about the last backup of this source on this host; "" for nothing. Raises JournalError."""
    past = _entries(read_facts(_path(state, source)))
    return str(past[-1].get("unexpected", "")) if past else ""


def all_unexpected(state: StateDir) -> dict[str, str]:
    """The same of every VM and dump host by its name, those with nothing unexpected left out. Raises JournalError."""
    found: dict[str, str] = {}
    for path in sorted(_folder(state).glob("*.json")):
        said = unexpected(state, path.stem)
        if said:
            found[str(read_facts(path).get("vm", path.stem))] = said
    return found


def _entries(facts: dict[str, Any]) -> list[dict[str, Any]]:
    found = facts.get("backups")
    return cast("list[dict[str, Any]]", found) if isinstance(found, list) else []


def _folder(state: StateDir) -> Path:
    return state.upkeep / "growth"


def _path(state: StateDir, source: str) -> Path:
    return _folder(state) / f"{source}.json"
