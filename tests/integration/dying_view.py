"""A view of a process that kills itself: `python -m tests.integration.dying_view CONFIG VM N`.

N counts what it does to the host: programs that are started, folders and files that are made, renamed or removed. At
that one the process is gone, as after a kill -9. 0: it lives, and prints how many there were.
"""

import os
import signal
import sys
from pathlib import Path

from infra.config.load import load
from tasks.views.opening import chosen_archive
from tasks.views.view import close_view, open_view

_DEEDS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "subprocess.Popen"}


def main(config: str, vm: str, moment: str) -> None:
    """See above."""
    settings = load(Path(config))
    count = 0

    def passed(event: str, _arguments: object) -> None:
        nonlocal count
        if event not in _DEEDS:  # the kill itself is an event, too
            return
        count += 1
        if count == int(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(passed)
    with chosen_archive(settings, vm) as chosen:
        open_view(chosen.repository, chosen.opened.manifest, chosen.entry, chosen.journal)
        close_view(chosen.entry, chosen.journal)
    print(count)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
