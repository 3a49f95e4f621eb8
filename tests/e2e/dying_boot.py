"""A `vmborg boot` that kills itself: `python -m tests.e2e.dying_boot CONFIG VM STEP [DIR]`, as after a kill -9 there.

With DIR the VM runs already, and its copy into that folder is what dies.
"""

import os
import signal
import sys
from pathlib import Path

from infra.config.load import load
from tasks.boot import Wanted, boot, keep_booted


def main(config_path: str, vm: str, step: str, directory: str = "") -> None:
    """See above."""
    config = load(Path(config_path))

    def passed(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    if directory:
        keep_booted(config, vm, Path(directory), progress=lambda _done, _total: None, mark=passed)
    else:
        boot(config, Wanted(vm), say=print, mark=passed)


if __name__ == "__main__":
    main(*sys.argv[1:])
