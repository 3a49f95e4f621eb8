"""What Prefect's on_cancellation and on_crashed hooks do: the same recovery as everybody else's.

A hook may run in another process than the flow, after it was killed (docs/adr/0003), so it starts from the flow run's
parameters alone.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from infra.errors import VmborgError
from tasks.job import load_config
from tasks.recovery import recover_domains

logger = logging.getLogger("vmborg.hooks")

_WAIT_FOR_DEAD_RUN_S = 20.0
_POLL_S = 0.5


def put_back_after(parameters: Mapping[str, Any]) -> None:
    """Recover the VM of a flow run that was cancelled or crashed.

    The dying run may hold the domain's lock for some seconds more; it is waited for. An error is logged and left to
    the reconcile flow: a hook has nobody to raise to.
    """
    vm = str(parameters["vm"])
    deadline = time.monotonic() + _WAIT_FOR_DEAD_RUN_S
    try:
        config = load_config(parameters.get("config"))
        recoveries = recover_domains(config, only=vm)
        while any(recovery.busy for recovery in recoveries) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            recoveries = recover_domains(config, only=vm)
    except VmborgError:
        logger.exception("%s could not be put back by the hook; reconcile will try again", vm)
        return
    for recovery in recoveries:
        logger.warning("%s after its run ended: %s", recovery.name, recovery.error or "; ".join(recovery.actions))
