"""The table of docs/faults.md is what `make faults` prints when all of it passes."""

import sys

from infra.process import run
from tests.faults.rows import DOCUMENT, GROUPS, MARKS


def test_the_committed_table_is_that_of_the_tests() -> None:
    """A row for each fault, word for word; after a change: `.venv/bin/python -m tests.faults --write`."""
    printed = run([sys.executable, "-m", "tests.faults"], timeout=60, cwd=str(DOCUMENT.parents[1])).stdout
    committed = DOCUMENT.read_text(encoding="utf-8").split(MARKS[0])[1].split(MARKS[1])[0]
    assert committed.strip() == printed.strip()
    assert all(f"## {group}" in committed for group in GROUPS.values())
