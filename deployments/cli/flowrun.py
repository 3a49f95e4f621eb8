"""What verbs have in common that run a flow in this process."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from deployments.cli.context import Context
from deployments.embedded import prefect_api, quiet_environment
from infra.errors import VmborgError


def console_level(context: Context) -> str:
    """The level of run logs on stderr: a terminal has its bar or table, and errors are told by the verb itself."""
    if context.verbose:
        return "DEBUG"
    return "CRITICAL" if context.json or context.output.stderr.isatty() else "INFO"


@contextmanager
def calling(context: Context, name: str) -> Generator[Callable[..., Any]]:
    """Call the flow `name`, with a Prefect server at hand; what is yielded returns its result as `result_of` does.

    The configuration's path is given to it as its first argument. Nothing may import Prefect before: it reads its
    settings then.
    """
    quiet_environment(console_level(context))
    with prefect_api(context.config.state_dir) as wait_for_api:
        flow: Any = getattr(import_module(f"flows.{name}"), name)
        wait_for_api()
        path = str(context.config_path) if context.config_path else None

        def call(*arguments: Any, **named: Any) -> Any:
            return result_of(flow(path, *arguments, **named, return_state=True))

        yield call


def result_of(state: Any) -> Any:
    """What a flow returned, also when its state is Failed. Raises what ended it otherwise, as a VmborgError."""
    data = state.result(raise_on_failure=False)
    if isinstance(data, VmborgError):
        raise data
    if isinstance(data, BaseException):
        raise VmborgError("The run ended unexpectedly.", evidence=f"{type(data).__name__}: {data}") from data
    return data
