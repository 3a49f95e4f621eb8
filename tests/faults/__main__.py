"""Print the table as it is when every fault passes, without injecting any: python -m tests.faults [--write]."""

import contextlib
import io
import sys
from pathlib import Path

import pytest

from tests.faults import rows


class _Collected:
    """The rows of all tests, in their order."""

    def __init__(self) -> None:
        self.rows: list[tuple[rows.Row, str]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Called once all tests are known."""
        self.rows = [(rows.row_of(item), "passed") for item in session.items]


def main(arguments: list[str]) -> int:
    """The exit code is pytest's."""
    found = _Collected()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["--collect-only", "-q", str(Path(__file__).parent)], plugins=[found])
    if code != pytest.ExitCode.OK:
        print(said.getvalue())
        return int(code)
    text = rows.table(found.rows)
    print(text)
    if "--write" in arguments:
        rows.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
