"""The one bar of a pull: what has come of all sources of all hosts, against what they gave last time."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deployments.cli.progress import Bar
from infra.config.models import Config
from infra.errors import ManifestError

if TYPE_CHECKING:
    from tasks.progress import Progress


class PullProgress:
    """Adds up what each source tells; hosts are pulled in threads of their own."""

    def __init__(self, bar: Bar, expected: int | None) -> None:
        self._bar = bar
        self._expected = expected
        self._done: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def show(self, progress: "Progress") -> None:
        """Take over what one source tells; after a lost connection it begins anew."""
        with self._lock:
            self._done[progress.source, progress.path] = progress.done
            done = sum(self._done.values())
            total = max(self._expected, done) if self._expected else None
            text = f"{progress.source}: {progress.path}" if progress.path else progress.source
            self._bar.update(done, total=total, text=text)


def expected_size(config: Config, names: Sequence[str]) -> int | None:
    """Bytes of the last dumps of these hosts together; None if one of them has none."""
    from tasks.dumps.hosts import last_dumps

    whole = 0
    for name in names:
        try:
            last = last_dumps(config, name)
        except ManifestError:
            return None
        if last is None:
            return None
        whole += last.size
    return whole
