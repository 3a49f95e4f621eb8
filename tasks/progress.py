"""Tell how far a copy is: to a listener in this process (a progress bar) and, throttled, to a Prefect artifact."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

ARTIFACT_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is, in bytes of the images."""

    source: str  # the VM
    done: int
    total: int
    path: str = ""  # what is being read now


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Have `listener` called with every step of progress made in this process while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class ProgressReporter:
    """One copy's progress: every call goes to the listeners, at most one in five seconds to the artifact."""

    def __init__(self, *, source: str, key: str, total: int) -> None:
        self._source = source
        self._total = total
        self._artifact: UUID = _make(key, source)
        self._next = time.monotonic() + ARTIFACT_INTERVAL_S

    def report(self, done: int, path: str = "") -> None:
        """`done` bytes of the images were read."""
        done = min(done, self._total)
        for listener in _listeners:
            listener(Progress(self._source, done, self._total, path))
        now = time.monotonic()
        if now >= self._next:
            self._next = now + ARTIFACT_INTERVAL_S
            self._update(100.0 * done / self._total if self._total else 100.0)

    def finish(self) -> None:
        """The copy ended well."""
        for listener in _listeners:
            listener(Progress(self._source, self._total, self._total))
        self._update(100.0)

    def _update(self, percent: float) -> None:
        update_progress_artifact(artifact_id=self._artifact, progress=percent)


def _make(key: str, source: str) -> UUID:
    made = create_progress_artifact(progress=0.0, key=key, description=f"Reading the disks of {source}")
    if not isinstance(made, UUID):
        raise TypeError("Prefect's synchronous call returned no artifact id")
    return made
