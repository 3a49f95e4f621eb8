"""How every step runs under Prefect: no caching, no stored results, retries only for transient errors.

Prefect transactions are not used: a retried task rolls its siblings back, which here would take an overlay away under
a running copy (docs/adr/0003).
"""

import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from infra.errors import VmborgError

P = ParamSpec("P")
R = TypeVar("R")

RETRY_DELAYS_S = [2.0, 10.0]


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: the error itself says whether the same call may succeed later."""
    error = state.data if isinstance(state.data, BaseException) else _error_of(state)
    return isinstance(error, VmborgError) and error.transient


def _error_of(state: State[Any]) -> object:
    return state.result(raise_on_failure=False)


def step(name: str, *, retries: bool = False, timeout_s: float | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function one named step of a flow.

    `retries` repeats it twice on transient errors. `timeout_s` fails it after that many seconds; steps that change
    the domain carry their own deadlines instead, because Prefect's time limit may strike between two calls.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return task(
            name=name,
            task_run_name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(RETRY_DELAYS_S) if retries else 0,
            retry_delay_seconds=RETRY_DELAYS_S if retries else 0,
            retry_condition_fn=is_transient if retries else None,
            timeout_seconds=timeout_s,
        )(function)

    return decorate


def artifact_key(flow_name: str, name: str) -> str:
    """A key for an artifact of a flow about `name`."""
    return slug(f"{flow_name}-{name}")


def vm_key(what: str, name: str, uuid: str) -> str:
    """A key for an artifact about a VM: readable, never another VM's, and the same on whatever host the VM runs."""
    return slug(f"{what}-{name}-{uuid[:8]}")


def slug(text: str) -> str:
    """Text as an artifact's key, for which Prefect takes lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
