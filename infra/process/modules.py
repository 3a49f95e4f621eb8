"""Programs that are modules of vmborg: a process of their own, with the interpreter and the code that we run with."""

import os
import sys
from pathlib import Path

_CODE_ROOT = Path(__file__).resolve().parents[2]


def own_module(name: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs this module, and the environment that it needs to find it, wherever it is started."""
    search = os.pathsep.join(filter(None, (str(_CODE_ROOT), os.environ.get("PYTHONPATH", ""))))
    return [sys.executable, "-P", "-m", name, *arguments], {"PYTHONPATH": search}
