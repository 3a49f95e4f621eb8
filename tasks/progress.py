"""Tell how far a copy is: to a listener in this process (a progress bar) and, throttled, to a Prefect artifact."""

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

logger = logging.getLogger("vmborg.backup")

ARTIFACT_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is, in bytes of the images or dumps."""

    source: str  # the VM, the dump host
    done: int
    total: int  # 0: nobody knows
    path: str = ""  # what is being read now


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


def tell(progress: Progress) -> None:
    """Call every listener of this process."""
    for listener in _listeners:
        listener(progress)


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Have `listener` called with every step of progress made in this process while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class ProgressReporter:
    """One copy's progress: every call goes to the listeners, at most one in five seconds to the artifact.

    A thread of its own talks to Prefect. Its client waits a minute for a server that does not answer, and neither
    borg nor the guest on its overlay shall wait for a dashboard, or fail with it.
    """

    def __init__(self, *, source: str, key: str, total: int, description: str = "") -> None:
        self._source = source
        self._description = description or f"Reading the disks of {source}"
        self._total = total
        self._key = key
        self._percent = 0.0
        self._over = threading.Event()
        self._news = threading.Event()
        context = copy_context()  # the artifact belongs to the task run
        self._teller = threading.Thread(target=context.run, args=(self._tell,), name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._teller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._news.set()
        self._teller.join(ARTIFACT_INTERVAL_S)

    def report(self, done: int, path: str = "") -> None:
        """`done` bytes of the images were read."""
        done = min(done, self._total)
        self._percent = 100.0 * done / self._total if self._total else 100.0
        self._news.set()
        tell(Progress(self._source, done, self._total, path))

    def report_of(self, done: int, total: int, path: str = "") -> None:
        """The same where the total is found on the way."""
        self._total = total
        self.report(done, path)

    def finish(self) -> None:
        """The copy ended well."""
        self.report(self._total)

    def _tell(self) -> None:
        try:
            made = create_progress_artifact(progress=0.0, key=self._key, description=self._description)
            while not self._over.wait(ARTIFACT_INTERVAL_S):
                self._news.wait()
                self._news.clear()
                self._update(made)
            self._update(made)
        except Exception as error:  # noqa: BLE001 - whatever Prefect and its transport raise; the copy is what counts
            logger.warning("Prefect does not show the progress of %s: %s", self._source, error or type(error).__name__)

    def _update(self, artifact: object) -> None:
        if not isinstance(artifact, UUID):
            raise TypeError("Prefect's synchronous call returned no artifact id")
        update_progress_artifact(artifact_id=artifact, progress=self._percent)
