"""Pull the dumps of several hosts, some at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.pull_dumps_host import PARTIAL, pull_dumps_host
from infra.ssh.group import together
from tasks.dumps.hosts import find_host
from tasks.job import load_config
from tasks.logs import forward_to_run
from tasks.names import on_host

_PATIENCE_S = 20.0  # of threads whose connections were ended; less than the 30 s that Prefect gives


@flow(name="pull-dumps", flow_run_name=on_host("all dump hosts"), persist_result=False)
def pull_dumps(
    hosts: list[str] | None = None, config: str | None = None, *, accept_smaller: bool = False
) -> State[dict[str, State[Any]]]:
    """Run `pull-dumps-host` for each host, `dumps.parallel` at a time; the state of each by its name.

    Args:
        hosts: Hosts by their names in `dumps.hosts`; every one if left out.
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
        accept_smaller: Believe dumps that are much smaller than the last ones.
    """
    forward_to_run()
    settings = load_config(config)
    names = list(settings.dumps.hosts) if hosts is None else list(dict.fromkeys(hosts))
    for name in names:
        find_host(settings, name)

    def pull(name: str) -> State[Any]:
        state: State[Any] = pull_dumps_host(name, config, accept_smaller=accept_smaller, return_state=True)
        return state

    states = _in_threads(names, pull, parallel=settings.dumps.parallel)
    bad = [name for name, state in states.items() if not state.is_completed()]
    if not bad:
        return Completed(message=f"{len(states)} hosts", data=states)
    only_partial = all(states[name].name == PARTIAL for name in bad)
    return Failed(name=PARTIAL if only_partial else "Failed", message=f"Not good: {', '.join(bad)}", data=states)


def _in_threads(names: Sequence[str], pull: Callable[[str], State[Any]], *, parallel: int) -> dict[str, State[Any]]:
    """Some at the same time. A signal ends the connections of all, so that nobody waits hours for their last byte."""
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="pull")
    with together() as group:
        # Each in a context of its own: the flow run above them is read from it.
        running = {name: pool.submit(copy_context().run, pull, name) for name in names}
        try:
            states = {name: future.result() for name, future in running.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            group.give_up()
            wait(running.values(), timeout=_PATIENCE_S)
            raise
    pool.shutdown()
    return states
