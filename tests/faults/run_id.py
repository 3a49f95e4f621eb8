"""Run vmborg with a run id that is known before: python -m tests.faults.run_id ID ARGUMENTS."""

import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from deployments.cli import backup
from deployments.cli.main import main


def main_with(run_id: str, arguments: list[str]) -> int:
    """Run the command; Prefect must not be imported before the command says so."""
    original = backup._back_up

    def armed(*given: Any) -> Any:
        setattr(import_module("tasks.job"), "secrets", SimpleNamespace(token_hex=lambda _: run_id))  # noqa: B010
        return original(*given)

    backup._back_up = armed
    return main(arguments)


if __name__ == "__main__":
    sys.exit(main_with(sys.argv[1], sys.argv[2:]))
