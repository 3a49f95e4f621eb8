"""Run vmborg and stop it (SIGSTOP) at a point of tests.e2e.killing: python -m tests.faults.stopping POINT ARGUMENTS.

Whoever waits for that sends SIGCONT.
"""

import os
import signal
import sys
from pathlib import Path

from tests.e2e import killing
from tests.guests import wait_for


def stop() -> None:
    """SIGSTOP to ourselves, the first time."""
    killing.die = _go_on
    os.kill(os.getpid(), signal.SIGSTOP)


def _go_on() -> None:
    """A step may come once more."""


def wait_stopped(pid: int) -> None:
    """Wait until the process stands still."""

    def stopped() -> bool:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"

    wait_for(stopped, timeout=90, what="a run that stands still", interval=0.02)


if __name__ == "__main__":
    killing.die = stop
    sys.exit(killing.main_dying_at(sys.argv[1], sys.argv[2:]))
