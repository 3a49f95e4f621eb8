"""`vmborg dumps pull`: run the flow pull-dumps."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.backup import PARTIAL_EXIT, console_level, heed_signals_again
from deployments.cli.context import Context, pass_context
from deployments.cli.dump_verbs.pull_progress import PullProgress, expected_size
from deployments.cli.output import error_data
from deployments.cli.words import size
from deployments.embedded import prefect_api, quiet_environment
from infra.errors import UsageError, VmborgError

if TYPE_CHECKING:
    from infra.dumps.manifest import DumpedSource
    from tasks.dumps.archive import DumpResult


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one host's pull ended."""

    host: str
    state: str  # complete, partial, failed
    result: "DumpResult | None" = None
    error: VmborgError | None = None


@click.command("pull")
@click.argument("hosts", metavar="[HOST]…", nargs=-1)
@click.option("--accept-smaller", is_flag=True, help="Believe dumps that are much smaller than the last ones.")
@pass_context
def command(context: Context, *, hosts: tuple[str, ...], accept_smaller: bool) -> int:
    """Pull the dumps of these hosts, or of all; each host becomes one archive.

    Exit code 1 if a host failed, 3 if one is partial (a source failed and its last good dump was kept).
    """
    config = context.config
    names = list(dict.fromkeys(hosts)) or list(config.dumps.hosts)
    if not names:
        raise UsageError(
            "There is no dump host.", evidence="dumps.hosts is empty", remedy="Add one, see `vmborg config generate`."
        )
    _require_known(context, names)
    quiet_environment(console_level(context))
    with prefect_api(config.state_dir) as wait_for_api:
        flow: Any = import_module("flows.pull_dumps").pull_dumps
        flow.on_running(heed_signals_again)
        wait_for_api()
        path = str(context.config_path) if context.config_path else None
        with _shown(context, names):
            state = flow(names, path, accept_smaller=accept_smaller, return_state=True)
        states = state.result(raise_on_failure=False)
        if isinstance(states, BaseException):
            raise states
        outcomes = [_outcome(name, states[name]) for name in names]
    _print(context, outcomes)
    return _exit_code(outcomes)


@contextmanager
def _shown(context: Context, names: list[str]) -> Generator[None]:
    from tasks.progress import listening

    expected = expected_size(context.config, names)
    with context.output.progress("dumping", expected) as bar, listening(PullProgress(bar, expected).show):
        yield


def _require_known(context: Context, names: list[str]) -> None:
    from tasks.dumps.hosts import find_host

    for name in names:
        find_host(context.config, name)


def _outcome(name: str, state: Any) -> Outcome:
    data = state.result(raise_on_failure=False)
    if isinstance(data, VmborgError):
        return Outcome(name, "failed", error=data)
    if isinstance(data, BaseException):
        error = VmborgError(f"The run of {name!r} ended unexpectedly.", evidence=f"{type(data).__name__}: {data}")
        return Outcome(name, "failed", error=error)
    return Outcome(name, "partial" if data.partial else "complete", result=data)


def _print(context: Context, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            context.output.error_of(outcome.host, outcome.error)
    context.output.document({"pulls": [_data(outcome) for outcome in outcomes]})
    done = [outcome.result for outcome in outcomes if outcome.result]
    if not done:
        return
    rows = [
        (result.host, source.source, _state(source), str(len(source.dumps)), *_amounts(source), result.archive or "-")
        for result in done
        for source in result.sources
    ]
    context.output.table(
        ("host", "source", "state", "dumps", "size", "seconds", "archive"), rows, right=("dumps", "size", "seconds")
    )
    for result in done:
        for problem in result.problems:
            context.output.note(f"{result.host}: {problem}")
        if result.unexpected:
            context.output.note(f"{result.host}: unexpected growth: {result.unexpected}")


def _amounts(source: "DumpedSource") -> tuple[str, str]:
    return size(sum(dump.size for dump in source.dumps)), f"{source.seconds:.1f}"


def _state(source: "DumpedSource") -> str:
    if source.good:
        return "good"
    return "stale" if source.dumps else "failed"


def _data(outcome: Outcome) -> dict[str, object]:
    result = outcome.result
    return {
        "host": outcome.host,
        "state": outcome.state,
        "result": None
        if result is None
        else {
            "repository": result.repository,
            "archive": result.archive or None,
            "size": result.size,
            "stored": result.stored,
            "borg_seconds": result.borg_seconds,
            "repositories": result.repositories,
            "unexpected": result.unexpected,
            "sources": [source.model_dump(mode="json") for source in result.sources],
        },
        "error": error_data(outcome.error) if outcome.error else None,
    }


def _exit_code(outcomes: list[Outcome]) -> int:
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if errors:
        return max(error.exit_code for error in errors) if len(errors) == len(outcomes) else 1
    return PARTIAL_EXIT if any(outcome.state == "partial" for outcome in outcomes) else 0
