"""Small facts that outlive a run: when what was checked, what a prune freed. One JSON file each, written durably.

They can be lost: a check, a prune or a copy makes them anew.
"""

import json
from pathlib import Path
from typing import Any, cast

from infra.errors import JournalError
from infra.journal.store import make_private, write_durably


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of this file; none when it is not there. Raises JournalError when it means nothing."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(found, dict):
        raise _unreadable(path, "it is not a JSON object")
    return cast("dict[str, Any]", found)


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Store the facts in place of earlier ones. Raises JournalError."""
    try:
        make_private(path.parent)
        write_durably(path, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise JournalError(
            f"{path} cannot be written.", evidence=str(error), remedy="Run as root; look at the space of state_dir."
        ) from error


def _unreadable(path: Path, why: str) -> JournalError:
    return JournalError(
        f"{path} cannot be read.",
        evidence=why,
        remedy="It holds nothing that cannot be made anew: move it away; the next check writes it again.",
    )
