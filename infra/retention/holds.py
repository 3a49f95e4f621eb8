"""Marks that a repository carries about its own archives: which are held, which source is retired. Pure.

A mark is a tiny archive with a name and a comment of its own (docs/adr/0012): every host that may read the repository
sees it, it can be made where deletions are refused, and it touches no archive of a backup. Names:
`hold.<digest>@<UTC time>` and `retired.<digest>@<UTC time>`; the comment names what is marked.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

HOLD = "hold"
RETIRED = "retired"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_NAME = re.compile(r"(hold|retired)\.[0-9a-f]{16}@(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark, read from its archive's name and comment."""

    archive: str  # the marking archive's own name
    kind: str
    subject: str  # the archive that is held; the UUID of the source that is retired
    time: datetime
    host: str  # who set it
    until: datetime | None = None  # of a hold: it ends by itself then

    def holds(self, now: datetime) -> bool:
        """Whether it is a hold that has not ended."""
        return self.kind == HOLD and (self.until is None or now < self.until)


def mark_name(kind: str, subject: str, when: datetime) -> str:
    """The name of the archive that marks `subject`; names of archives are too long to stand in one another."""
    digest = hashlib.sha256(subject.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{kind}.{digest}@{when.astimezone(UTC).strftime(_TIME)}"


def mark_facts(kind: str, subject: str, *, host: str, until: datetime | None = None) -> dict[str, str]:
    """What the comment of a mark says."""
    facts = {"v": "1", "mark": kind, "subject": subject, "host": host}
    return facts | ({"until": until.astimezone(UTC).strftime(_TIME)} if until else {})


def read_mark(name: str, facts: Mapping[str, str]) -> Mark | None:
    """The mark that an archive is; None for every other archive, and for a mark that contradicts its own name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    kind, subject = found[1], facts.get("subject", "")
    try:
        when = _moment(found[2])
        until = _moment(facts["until"]) if facts.get("until") else None
    except ValueError:
        return None
    if not subject or facts.get("mark") != kind or mark_name(kind, subject, when) != name:
        return None
    return Mark(name, kind, subject, when, facts.get("host", ""), until)


def held_names(marks: Iterable[Mark], now: datetime) -> set[str]:
    """The archives that are held now."""
    return {mark.subject for mark in marks if mark.holds(now)}


def spent_marks(marks: Iterable[Mark], archives: Iterable[str], now: datetime) -> list[str]:
    """Holds that have ended or whose archive is gone: their own archives may go."""
    there = set(archives)
    return [mark.archive for mark in marks if mark.kind == HOLD and (not mark.holds(now) or mark.subject not in there)]


def _moment(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
