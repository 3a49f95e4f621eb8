"""The table of faults: a row for each test of this folder, taken from its `fault` marker."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"
MARKS = ("<!-- faults begin -->", "<!-- faults end -->")

GROUPS = {
    "test_death": "Processes",
    "test_commit": "Processes",
    "test_worker": "Processes",
    "test_daemons": "Processes",
    "test_guest": "Guest",
    "test_agent": "Guest",
    "test_changed": "Reading only what changed",
    "test_storage": "Storage",
    "test_repository": "Storage",
    "test_jobs": "Neighbours",
    "test_neighbours": "Neighbours",
}
"""What a file of tests is about, in the order of the table."""

COLUMNS = ("group", "fault", "seen", "does", "must")
HEAD = "| fault | what users see | what vmborg does | what they must do | |\n|---|---|---|---|---|"

Row = dict[str, str]
"""COLUMNS: which group, which fault, what users see, what vmborg does, what they must do."""


def row_of(item: pytest.Item) -> Row:
    """The row of a test, from `@pytest.mark.fault(WHAT, seen=…, does=…, must=…)`. Raises UsageError without it."""
    marker = item.get_closest_marker("fault")
    words = {} if marker is None else {"fault": " ".join(marker.args), "must": "nothing", **marker.kwargs}
    row = {"group": GROUPS[item.path.stem], **words}
    if set(row) != set(COLUMNS) or not all(row.values()):
        raise pytest.UsageError(f"{item.nodeid} needs @pytest.mark.fault(WHAT, seen=…, does=…), must=… if anything")
    return row


def results(stats: Mapping[str, Sequence[Any]]) -> list[tuple[Row, str]]:
    """Each fault that was injected and how its test ended: `passed` only if everything about it passed."""
    found: dict[int, tuple[Row, str]] = {}
    for report in [each for reports in stats.values() for each in reports]:
        properties: dict[str, Any] = dict(report.user_properties) if isinstance(report, pytest.TestReport) else {}
        given = properties.get("fault")
        if given is None:
            continue
        number, row = given["number"], given["row"]
        so_far = found.get(number, (row, "passed"))[1]
        found[number] = (row, so_far if report.passed else "**failed**")
    return [found[number] for number in sorted(found)]


def table(rows: Sequence[tuple[Row, str]]) -> str:
    """Markdown: a section a group, a line a fault."""
    sections: list[str] = []
    for group in dict.fromkeys(GROUPS.values()):
        lines = [_line(row, result) for row, result in rows if row["group"] == group]
        if lines:
            sections.append("\n".join([f"## {group}", "", HEAD, *lines]))
    return "\n\n".join(sections)


def _line(row: Row, result: str) -> str:
    cells = [row[column] for column in COLUMNS[1:]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, result]) + " |"


def write(text: str) -> None:
    """Put the table into docs/faults.md."""
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    DOCUMENT.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")


def summary(rows: Sequence[tuple[Row, str]]) -> str:
    """One line under the table."""
    passed = sum(result == "passed" for _, result in rows)
    return f"{len(rows)} faults injected: {passed} passed, {len(rows) - passed} failed"
