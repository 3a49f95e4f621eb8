"""What verbs have in common that run a flow in this process."""

from typing import Any

from deployments.cli.context import Context
from infra.errors import VmborgError


def console_level(context: Context) -> str:
    """The level of run logs on stderr: a terminal has its bar or table, and errors are told by the verb itself."""
    if context.verbose:
        return "DEBUG"
    return "CRITICAL" if context.json or context.output.stderr.isatty() else "INFO"


def result_of(state: Any) -> Any:
    """What a flow returned, also when its state is Failed. Raises what ended it otherwise, as a VmborgError."""
    data = state.result(raise_on_failure=False)
    if isinstance(data, VmborgError):
        raise data
    if isinstance(data, BaseException):
        raise VmborgError("The run ended unexpectedly.", evidence=f"{type(data).__name__}: {data}") from data
    return data
