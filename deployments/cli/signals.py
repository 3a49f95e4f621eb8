"""Signals that end a verb: the first unwinds it so that every `finally` runs, further ones wait for that.

A backup puts its VM back while it unwinds. An impatient second Ctrl-C must not cut that short; SIGKILL still
can, and `vmborg recover` repairs it.
"""

import os
import signal
from types import FrameType

_HEEDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Terminated(SystemExit):
    """The call was ended by a signal; the exit code is 128 + its number, as shells count."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


def heed_signals() -> None:
    """Install the handlers. A signal that is ignored already (nohup) stays ignored."""
    for number in _HEEDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _first)


def _first(number: int, _frame: FrameType | None) -> None:
    for other in _HEEDED:
        if signal.getsignal(other) is not signal.SIG_IGN:
            signal.signal(other, _again)
    raise Terminated(number)


def _again(_number: int, _frame: FrameType | None) -> None:
    # Written without a lock: the interrupted code may hold that of sys.stderr.
    os.write(2, b"vmborg is ending already and tidies up first; wait, or see `vmborg recover`.\n")
