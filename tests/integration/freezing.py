"""A process that freezes a guest and stays in the window: `python -m tests.integration.freezing URI UUID DEADLINE`."""

import sys
import time

from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.freeze import frozen_window
from infra.model import Quiesce


def main(uri: str, uuid: str, deadline: str) -> None:
    """Says `in the window`, then sleeps until it is killed."""
    with Hypervisor.open(uri) as hypervisor:
        domain = hypervisor.by_uuid(uuid)
        with frozen_window(domain, policy=Quiesce.REQUIRE, agent_timeout=5, deadline=float(deadline)):
            sys.stdout.write("in the window\n")
            sys.stdout.flush()
            time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
