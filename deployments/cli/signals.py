"""Signals that end a verb: the first unwinds it so that every `finally` runs, further ones wait for that.

A backup puts its VM back while it unwinds. An impatient second Ctrl-C must not cut that short; SIGKILL still
can, and `vmborg recover` repairs it.

The handler raises `Terminated` wherever the main thread is, and there are places that drop what is raised in them:
finalisers, hooks around fork(2), a library's `except BaseException`, Prefect once a run has its final state. A signal
that comes right before a blocking call is not even seen until that call ends. So a thread hears of each signal at once
(signal.set_wakeup_fd), looks whether the call is being unwound because of it, and sends it again until that is so.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType

from infra.process import HEEDED

_FIRST_LOOK_S, _LAST_LOOK_S = 0.02, 0.5  # the thread looks less and less often
_PATIENCE_S = 0.5  # so long nothing must be unwound before an ending counts as dropped
_BAD_MOMENTS_S = 3.0  # after that it is raised at a bad moment too

# Where nothing may be raised, and whoever is there is quick: locks that are held without a `with` (logging), modules
# that are half loaded; and, where it is the very place, a program that is started and not yet anybody's (contextlib).
_BAD_ANYWHERE = {"logging", "importlib._bootstrap"}
_BAD_INNERMOST = {"contextlib", "weakref", "_weakrefset"}


class Terminated(SystemExit):
    """The call was ended by a signal; the exit code is 128 + its number, as shells count."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class _Call:
    """One call of the command, and whether a signal ends it. The handler runs in the main thread alone."""

    def __init__(self) -> None:
        self.arrived = False  # at the top
        self._ending: Terminated | None = None
        self._bad_until = 0.0
        heard, tell = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        self._main = threading.get_ident()
        threading.Thread(target=self._watch, args=(heard,), name="signals", daemon=True).start()

    def heed(self) -> None:
        for number in HEEDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._ending is not None:
            # Written without a lock: the interrupted code may hold that of sys.stderr.
            os.write(2, b"vmborg is ending already and tidies up first; wait, or see `vmborg recover`.\n")
        elif not self._is_bad_moment(frame):  # else the thread sends it again
            self._ending = Terminated(number)
            raise self._ending

    def _is_bad_moment(self, frame: FrameType | None) -> bool:
        if not _is_bad_place(frame):
            return False
        self._bad_until = self._bad_until or time.monotonic() + _BAD_MOMENTS_S
        return time.monotonic() < self._bad_until

    def _watch(self, heard: int) -> None:
        while not (numbers := [number for number in os.read(heard, 64) if number in HEEDED]):
            pass
        wait, unseen_since = _FIRST_LOOK_S, time.monotonic()
        while not self.arrived:
            time.sleep(wait)
            wait = min(2 * wait, _LAST_LOOK_S)
            ending = self._ending
            if ending is None:
                signal.pthread_kill(self._main, numbers[0])
                unseen_since = time.monotonic()
            elif _is_handled(ending, self._main):
                unseen_since = time.monotonic()
            elif time.monotonic() - unseen_since > _PATIENCE_S:
                self._ending, self._bad_until, wait = None, 0.0, _FIRST_LOOK_S


def _is_bad_place(frame: FrameType | None) -> bool:
    innermost = True
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module in _BAD_ANYWHERE or frame.f_code.co_name == "__del__" or (innermost and module in _BAD_INNERMOST):
            return True
        frame, innermost = frame.f_back, False
    return False


def _is_handled(ending: Terminated, thread: int) -> bool:
    """Whether a thread is in an `except` or `finally` block because of it, or because of what came of it there."""
    # Of the thread's exceptions this is the last (documented in sys); each knows in which one's handling it came.
    found: object = sys._current_exceptions().get(thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    error = found[1] if isinstance(found, tuple) else found  # a tuple until Python 3.11
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        if error is ending:
            return True
        seen.add(id(error))
        error = error.__context__
    return False


_calls: list[_Call] = []  # the one that goes on, last


def heed_signals() -> None:
    """Install the handlers; call it again when somebody took them. A signal that is ignored already (nohup) stays so.

    Prefect's engine takes SIGTERM for the length of a flow run, and its handler raises at each further signal.
    """
    if not _calls or _calls[-1].arrived:
        _calls.append(_Call())
    _calls[-1].heed()


def signal_arrived() -> None:
    """Say that a Terminated was caught where the call ends: only the exit code is still to come, and no signal's."""
    _calls[-1].arrived = True
    for number in HEEDED:
        signal.signal(number, signal.SIG_IGN)
