"""Hold signals back for a moment that must not be cut in two.

A handler that raises does so wherever the main thread is. Around fork(2) that is fatal: Python drops what is raised in
its at-fork hooks, a lock taken there may stay taken, and a child that was started is known to nobody. Masking does not
help, because another thread takes the signal then and the main thread runs the handler all the same. So the handlers
themselves are replaced for that moment, whoever installed them (vmborg, Prefect).
"""

import signal
import threading
from types import FrameType
from typing import Any, Self

HEEDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""The signals that end a run in good order."""


class HeldSignals:
    """Holds HEEDED back during its block. A context manager; in other threads than the main one it does nothing.

    What came meanwhile reaches the former handlers at `release`, which the end of the block calls: what a handler
    raises is raised there.
    """

    def __init__(self) -> None:
        self._former: dict[signal.Signals, Any] = {}
        self._came: list[int] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # handlers run in the main thread alone
        try:
            for number in HEEDED:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._former[number] = handler
                    signal.signal(number, self._note)
        except BaseException:  # what a handler that was not replaced yet has raised
            self._restore()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let them through again."""
        self._restore()
        came, self._came = dict.fromkeys(self._came), []
        for number in came:
            signal.raise_signal(number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    def _restore(self) -> None:
        try:
            while self._former:
                number, handler = next(iter(self._former.items()))
                signal.signal(number, handler)
                del self._former[number]
        except BaseException:  # a handler that is back has raised; the others have to come back too
            self._restore()
            raise
