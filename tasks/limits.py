"""One writer a repository: a slot of Prefect's, waited for before a guest is touched.

borg's own lock is what protects a repository. This slot only keeps runs from meeting there: who waits for it has frozen
nothing and stands on no overlay. `vmborg deploy` creates the limit; where it does not exist, and in a run that was
started by hand, nothing waits: there borg's lock decides, as ever.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from infra.config.models import Config

logger = logging.getLogger("vmborg.limits")

PREFIX = "vmborg-repository:"
_LEASE_S = 60.0  # the least that Prefect's server takes
_IN_NAMES = str.maketrans(dict.fromkeys("/%&<>", "|"))  # Prefect's names hold none of these


def limit_name(config: Config, repository: str) -> str:
    """The name of a repository's limit: a remote repository has one for all hosts, a local path one a host."""
    location = config.repositories[repository].location.rstrip("/")
    where = f"{config.hypervisor.name}:{location}" if location.startswith("/") else location
    return f"{PREFIX}{where}".translate(_IN_NAMES)


@contextmanager
def one_writer(config: Config, *repositories: str) -> Generator[None]:
    """Hold the slots of these repositories during the block; wait for all of them as long as it takes.

    The slot is a lease of a minute that is renewed: one whose holder died is free again after that. A renewal that
    fails (the server is gone) does not end the block, nor does a slot that cannot be given back.
    """
    names = sorted({limit_name(config, each) for each in repositories}) if _is_deployed() else []
    names = [name for name in names if _exists(name)]
    if not names:
        yield
        return
    slot = concurrency(names, strict=True, lease_duration=_LEASE_S, raise_on_lease_renewal_failure=False)
    slot.__enter__()
    try:
        yield
    finally:
        try:
            slot.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - whatever Prefect and its transport raise; the archive is what counts
            logger.warning("the slot %s was not given back, its lease ends by itself: %s", ", ".join(names), error)


def _is_deployed() -> bool:
    """Whether this run was deployed, or the one that it is part of: a pull of dumps is a run within another."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    if context.flow_run.deployment_id or context.flow_run.parent_task_run_id is None:
        return bool(context.flow_run.deployment_id)
    with get_client(sync_client=True) as client:
        return bool(client.read_flow_run(UUID(flow_run.root_flow_run_id)).deployment_id)


def _exists(name: str) -> bool:
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            return False
    return True
