"""Run the installed command as a user does."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.process import run

VMBORG = Path(sys.executable).with_name("vmborg")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the command that ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails when there is anything else."""
        return json.loads(self.stdout)

    def voices(self) -> tuple[str, str, str]:
        """What failed, the evidence and what to do, from stderr; each must be there."""
        lines = self.stderr.splitlines()
        brief = next(line.removeprefix("Error: ") for line in lines if line.startswith("Error: "))
        remedy = next(line.removeprefix("What to do: ") for line in lines if line.startswith("What to do: "))
        evidence = "\n".join(line.removeprefix("  ") for line in lines if line.startswith("  "))
        assert brief
        assert evidence
        assert remedy
        return brief, evidence, remedy


def vmborg(
    *arguments: str | Path, config: Path | None = None, timeout: float = 60, env: Mapping[str, str] | None = None
) -> Call:
    """Run `vmborg` with these arguments to its end, `timeout` in seconds."""
    options = ["--config", str(config)] if config else []
    command = [str(VMBORG), *options, *map(str, arguments)]
    clean = {"PATH": os.environ["PATH"], **(env or {})}
    done = run(command, timeout=timeout, check=False, env=clean)
    return Call(done.returncode, done.stdout, done.stderr)
