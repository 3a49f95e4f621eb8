"""Run vmborg and kill -9 it at a named point: python -m tests.e2e.killing POINT vmborg-arguments…

The code that runs is the product's own; only the function at the point is wrapped, so that the process dies right
after (or right before) it, as a power cut would have it.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from deployments.cli.main import main

STEPS = ("recover", "inspect", "preflight", "snapshot", "create", "pivot", "verify", "report")


def die() -> None:
    """SIGKILL to ourselves."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any], *, before: bool = False) -> Callable[..., Any]:
    """The function, and death around it."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before:
            die()
        result = function(*arguments, **named)
        die()
        return result

    return wrapped


def arm(point: str) -> None:
    """Prepare the death."""
    import tasks.archives
    import tasks.domains
    import tasks.report
    import tasks.staging

    when, _, what = point.partition(" ")
    steps = {
        "recover": tasks.domains.recover_leftovers,
        "inspect": tasks.domains.inspect_domain,
        "preflight": tasks.domains.preflight,
        "snapshot": tasks.domains.freeze_and_snapshot,
        "create": tasks.archives.create_archive,
        "pivot": tasks.domains.put_domain_back,
        "verify": tasks.archives.verify_archive,
        "report": tasks.report.publish,
    }
    if what in steps:
        steps[what].fn = dying(steps[what].fn, before=when == "before")
    elif what == "taking":  # inside the freeze: the snapshot is about to be taken, or just was
        tasks.domains.take_snapshot = dying(tasks.domains.take_snapshot, before=when == "before")
    elif what == "manifest":  # thawed, the journal says snapshotted, borg was not started
        tasks.staging.write_manifest = dying(tasks.staging.write_manifest, before=when == "before")
    else:
        raise SystemExit(f"no such point: {point}")


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
