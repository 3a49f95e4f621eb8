"""The comparison in docs/dumps.md claims nothing of vmborg that no test shows."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "dumps.md").read_text(encoding="utf-8").split("## Compared\n")[1]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")][2:]
TESTS = dict(re.findall(r"^([0-9]+)\. `(\S+)`$", PAGE, re.MULTILINE))


def test_every_claim_names_its_tests() -> None:
    """Each row that says more of vmborg than `no` names tests by their numbers, and no number is left over."""
    named = {row[0]: re.findall(r"[0-9]+", row[4]) for row in ROWS}
    assert len(ROWS) > 20
    assert [what for what, numbers in named.items() if not numbers] == [row[0] for row in ROWS if row[3] == "no"]
    assert {number for numbers in named.values() for number in numbers} == set(TESTS)


def test_every_test_that_is_named_exists() -> None:
    """What a number stands for is a function in a file of tests."""
    assert TESTS
    missing: list[str] = []
    for each in TESTS.values():
        path, _, name = each.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(each)
    assert missing == []
