"""What a prune tells: to the dashboard, to `--json`, to a person. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.errors import VmborgError
from tasks.retention.outlook import Outlook, SourcePlan


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was done, or would be, to one repository."""

    repository: str
    location: str
    outlook: Outlook | None = None
    withheld: str = ""  # why nothing was deleted although something would have been; "" if it was
    deleted: tuple[str, ...] = ()
    freed: int | None = None  # bytes, about; None without a compact
    error: VmborgError | None = None
    notes: tuple[str, ...] = ()


def rows(outlook: Outlook) -> list[dict[str, Any]]:
    """A row for each archive: its fate and the rule."""
    return [
        {
            "source": source.name,
            "kind": source.kind,
            "stage": source.stage.value,
            "archive": each.archive.name,
            "time": _moment(each.archive.time),
            "fate": "kept" if each.kept else "pruned",
            "rule": each.rule,
        }
        for source in outlook.sources
        for each in source.decisions
    ]


def as_data(pruned: Pruned) -> dict[str, Any]:
    """One repository as JSON-like data, its error aside."""
    outlook = pruned.outlook
    return {
        "repository": pruned.repository,
        "location": pruned.location,
        "withheld": pruned.withheld,
        "deleted": list(pruned.deleted),
        "freed": pruned.freed,
        "notes": list(pruned.notes),
        "sources": [_source(source) for source in outlook.sources] if outlook else [],
        "archives": rows(outlook) if outlook else [],
    }


def _source(source: SourcePlan) -> dict[str, Any]:
    return {
        "name": source.name,
        "id": source.id,
        "kind": source.kind,
        "owner": source.owner,
        "stage": source.stage.value,
        "gone_since": _moment(source.since) if source.since else None,
        "kept": sum(each.kept for each in source.decisions),
        "pruned": sum(not each.kept for each in source.decisions),
    }


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
