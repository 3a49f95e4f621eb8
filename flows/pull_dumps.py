"""Pull the dumps of several hosts, some at the same time."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.pull_dumps_host import PARTIAL, pull_dumps_host
from tasks.dumps.hosts import find_host
from tasks.job import load_config
from tasks.logs import forward_to_run


@flow(name="pull-dumps", persist_result=False)
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

    with ThreadPoolExecutor(settings.dumps.parallel, thread_name_prefix="pull") as pool:
        # Each in a context of its own: the flow run above them is read from it.
        running = {name: pool.submit(copy_context().run, pull, name) for name in names}
        states = {name: future.result() for name, future in running.items()}
    bad = [name for name, state in states.items() if not state.is_completed()]
    if not bad:
        return Completed(message=f"{len(states)} hosts", data=states)
    only_partial = all(states[name].name == PARTIAL for name in bad)
    return Failed(name=PARTIAL if only_partial else "Failed", message=f"Not good: {', '.join(bad)}", data=states)
