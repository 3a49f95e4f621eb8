"""A drill that kills itself: `python -m tests.e2e.dying_drill CONFIG VM STEP`, as after a kill -9 at that step."""

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from infra.config.load import load
from tasks.drills.job import choose
from tasks.drills.run import drill_vm


def main(config_path: str, vm: str, step: str) -> None:
    """See above."""
    config = load(Path(config_path))

    def passed(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    job = choose(config, [vm], everything=False, now=datetime.now(UTC))
    drill_vm(config, job.candidates[0], mark=passed)


if __name__ == "__main__":
    main(*sys.argv[1:])
