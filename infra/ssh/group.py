"""Connections that end together: what a signal interrupts in one thread may wait for bytes in another."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from infra.errors import SshError


class Group:
    """The open connections of one undertaking, whatever threads they are in."""

    def __init__(self) -> None:
        self._ends: set[Callable[[], object]] = set()
        self._lock = threading.Lock()
        self._over = False

    def join(self, end: Callable[[], object]) -> None:
        """Have `end` called when the group gives up. Raises SshError if it has."""
        with self._lock:
            self.require()
            self._ends.add(end)

    def require(self) -> None:
        """Raise SshError if it has given up."""
        if self._over:
            raise SshError("This pull is being ended.", evidence="a signal or a cancellation", remedy="Start it again.")

    def leave(self, end: Callable[[], object]) -> None:
        """This connection has ended by itself."""
        with self._lock:
            self._ends.discard(end)

    def give_up(self) -> None:
        """End every connection, and let none begin."""
        with self._lock:
            self._over = True
            ends = list(self._ends)
        for end in ends:
            end()


_current: ContextVar[Group | None] = ContextVar("ssh-group", default=None)


@contextmanager
def together() -> Generator[Group]:
    """Every connection that is opened in this context, or in a copy of it in another thread, joins the group."""
    group = Group()
    token = _current.set(group)
    try:
        yield group
    finally:
        _current.reset(token)


def require_group() -> None:
    """Raise SshError if the group of this context has given up."""
    group = _current.get()
    if group is not None:
        group.require()


@contextmanager
def membership(end: Callable[[], object]) -> Generator[None]:
    """Belong to the group of this context, if there is one. Raises SshError when it has given up."""
    group = _current.get()
    if group is None:
        yield
        return
    group.join(end)
    try:
        yield
    finally:
        group.leave(end)
