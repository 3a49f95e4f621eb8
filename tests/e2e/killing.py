"""Run vmborg and kill -9 it at a named point: python -m tests.e2e.killing POINT ARGUMENTS.

The code that runs is the product's own; only the function at the point is wrapped, so that the process dies right
after (or right before) it, as a power cut would have it.
"""

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from deployments.cli import backup
from deployments.cli.main import main


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


def die_frozen(domain: Any, *_: Any, **__: Any) -> None:
    """Stands in for `take_snapshot`: death in the frozen window. Raises SystemExit if the guest is not frozen."""
    if domain.freeze_status(timeout=5) != "frozen":
        raise SystemExit("the guest is not frozen at this point")
    die()


def arm(point: str) -> None:
    """Prepare the death."""
    archives, domains, report, staging = (
        import_module(f"tasks.{name}") for name in ("archives", "domains", "report", "staging")
    )
    when, _, what = point.partition(" ")
    steps = {
        "recover": domains.recover_leftovers,
        "inspect": domains.inspect_domain,
        "preflight": domains.preflight,
        "snapshot": domains.freeze_and_snapshot,
        "create": archives.create_archive,
        "pivot": domains.put_domain_back,
        "verify": archives.verify_archive,
        "report": report.publish,
    }
    if what in steps:
        steps[what].fn = dying(steps[what].fn, before=when == "before")
    elif point == "in freeze":
        setattr(domains, "take_snapshot", die_frozen)  # noqa: B010 - pyright
    elif what == "taking":  # inside the freeze: the snapshot is about to be taken, or just was
        setattr(domains, "take_snapshot", dying(domains.take_snapshot, before=when == "before"))  # noqa: B010 - pyright
    elif what == "manifest":  # thawed, the journal says snapshotted, borg was not started
        setattr(staging, "write_manifest", dying(staging.write_manifest, before=when == "before"))  # noqa: B010
    else:
        raise SystemExit(f"no such point: {point}")


def main_dying_at(point: str, arguments: list[str]) -> int:
    """Run the command; arm right before its flow, for Prefect must not be imported before the command says so."""
    original = backup._back_up

    def armed(*given: Any) -> Any:
        arm(point)
        return original(*given)

    backup._back_up = armed
    return main(arguments)


if __name__ == "__main__":
    sys.exit(main_dying_at(sys.argv[1], sys.argv[2:]))
