"""How much of a source has come, told to whoever listens."""

import time

from tasks.dumps.job import DumpJob
from tasks.progress import Progress, tell

_EVERY_S = 0.2  # thousands of blocks a second come through


class Counting:
    """Counts the bytes of one source and tells now and then; the total is what it gave last time, 0 if nothing."""

    def __init__(self, job: DumpJob, label: str, *, expected: int) -> None:
        self._host = job.name
        self._label = label
        self._expected = expected
        self._done = 0
        self._next = 0.0

    def add(self, count: int) -> None:
        """So many bytes more are here."""
        self._done += count
        if time.monotonic() >= self._next:
            self.tell()

    def tell(self) -> None:
        """Tell now."""
        self._next = time.monotonic() + _EVERY_S
        tell(Progress(self._host, self._done, self._expected, self._label))
