"""A recovery that kills itself: `python -m tests.integration.dying URI JOURNAL UUID MOMENT`.

MOMENT counts what put_back reports (journal lines to write, actions done): at that one the process is gone, as after a
kill -9. 0: it is not killed from inside.
"""

import os
import signal
import sys
from pathlib import Path

from infra.hypervisor.commit_live import Deadlines
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.put_back import put_back
from infra.journal.store import Journal
from infra.model import JournalEntry


def main(uri: str, journal_folder: str, uuid: str, moment: str) -> None:
    """See above."""
    journal = Journal(Path(journal_folder))
    left = int(moment)

    def passed() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def save(entry: JournalEntry) -> None:
        journal.write(entry)
        passed()

    entry = journal.read(uuid)
    assert entry is not None
    with Hypervisor.open(uri) as hypervisor:
        deadlines = Deadlines(commit=60, pivot=20, pause=0)
        put_back(hypervisor, entry, deadlines=deadlines, save=save, on_action=lambda _: passed())


if __name__ == "__main__":
    main(*sys.argv[1:])
