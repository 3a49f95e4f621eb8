"""`vmborg backup`: run the flow backup-vm for the VMs named, one after the other."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.flowrun import console_level
from deployments.cli.output import error_data, exit_code_of
from deployments.cli.signals import heed_signals
from deployments.cli.words import size
from deployments.embedded import prefect_api, quiet_environment
from infra.errors import ProcessError, UsageError, VmborgError

if TYPE_CHECKING:
    from tasks.report import BackupResult

PARTIAL_EXIT = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one VM's backup ended."""

    vm: str
    state: str  # complete, partial, failed
    result: "BackupResult | None" = None
    error: VmborgError | None = None


@click.command
@click.argument("vms", metavar="VM…", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every VM that the configuration does not exclude.")
@pass_context
def command(context: Context, *, vms: tuple[str, ...], everything: bool) -> int:
    """Back up VMs now, live; each becomes one complete archive.

    Exit code 1 if a VM failed, 3 if one is partial (a writable disk is neither covered nor excluded, or one of its
    repositories has no archive).
    """
    if bool(vms) == everything:
        raise UsageError("Say which VMs: either their names or --all.", remedy="See `vmborg backup --help`.")
    config = context.config
    names = _all_names(context) if everything else list(dict.fromkeys(vms))
    quiet_environment(console_level(context))
    with prefect_api(config.state_dir) as wait_for_api:
        import_module("flows.backup_vm").backup_vm.on_running(heed_signals_again)
        if not context.verbose:
            _quieten()
        wait_for_api()
        outcomes = [_back_up(context, name) for name in names]
    _print(context, outcomes)
    return _exit_code(outcomes)


def _quieten() -> None:
    """Keep off the console what the command tells itself (errors), and the address of a server without dashboard."""
    for logger in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(logger).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR and not record.getMessage().startswith("View at ")


def heed_signals_again(_flow: object, _run: object, _state: object) -> None:
    """For a flow's `on_running`: Prefect has taken SIGTERM for it."""
    heed_signals()


def _all_names(context: Context) -> list[str]:
    from tasks.job import covered_names

    names = covered_names(context.config, context.hypervisor())
    if not names:
        raise UsageError(
            "There is no VM to back up.",
            evidence=f"{context.config.hypervisor.uri} has none that vms.exclude leaves",
            remedy="See `virsh list --all` and vms.exclude.",
        )
    return names


def _back_up(context: Context, name: str) -> Outcome:
    import httpx

    from flows.backup_vm import PARTIAL, backup_vm
    from tasks.progress import Progress, listening

    path = str(context.config_path) if context.config_path else None
    with context.output.progress(f"{name}: preparing") as bar:

        def show(progress: Progress) -> None:
            what = "reading" if progress.source == name else f"dumping {progress.source}"
            bar.update(progress.done, total=progress.total or None, text=f"{name}: {what}")

        with listening(show):
            try:
                state: Any = backup_vm(name, path, return_state=True)
            except httpx.HTTPError as lost:
                error = _prefect_lost(name, lost)
                context.output.error_of(name, error)
                return Outcome(name, "failed", error=error)
    data = state.result(raise_on_failure=False)
    if isinstance(data, VmborgError):
        context.output.error_of(name, data)
        return Outcome(name, "failed", error=data)
    if isinstance(data, BaseException):
        error = VmborgError(f"The run of {name!r} ended unexpectedly.", evidence=f"{type(data).__name__}: {data}")
        context.output.error_of(name, error)
        return Outcome(name, "failed", error=error)
    return Outcome(name, "partial" if state.name == PARTIAL else "complete", result=data)


def _prefect_lost(name: str, error: Exception) -> ProcessError:
    return ProcessError(
        f"Prefect's server went away while {name!r} was backed up; the run is not recorded there.",
        evidence=f"{type(error).__name__}: {error}",
        remedy=f"The VM was put back without Prefect; `vmborg list {name}` tells whether its archive is good. Look at "
        "the Prefect server.",
    )


def _print(context: Context, outcomes: Sequence[Outcome]) -> None:
    context.output.document({"backups": [_data(outcome) for outcome in outcomes]})
    done = [outcome.result for outcome in outcomes if outcome.result]
    if not done:
        return
    context.output.table(
        ("VM", "state", "archive", "consistency", "frozen", "size", "read", "new", "seconds"),
        [
            (
                result.vm,
                "partial" if result.partial else "complete",
                result.archive,
                result.consistency,
                f"{result.frozen_ms} ms",
                size(result.original),
                size(sum(disk["read"] for disk in result.disks)),
                size(result.stored),
                f"{result.seconds:.1f}",
            )
            for result in done
        ],
        right=("frozen", "size", "read", "new", "seconds"),
    )
    for result in done:
        for disk in result.uncovered:
            context.output.note(f"{result.vm}: not covered: {disk}")
        for each in result.repositories:
            if each.error is not None:
                context.output.note(
                    f"{result.vm}: not in the repository {each.repository}: {each.error['brief']}\n"
                    f"What to do: {each.error['remedy']}"
                )
        if result.stale:
            context.output.note(f"{result.vm}: earlier archives are suspect: {result.stale}")
        if result.unexpected:
            context.output.note(f"{result.vm}: unexpected growth: {result.unexpected}")
        for problem in result.dump_problems:
            context.output.note(f"{result.vm}: not dumped: {problem}")
        for action in result.recovered:
            context.output.note(f"{result.vm}: recovered first: {action}")


def _data(outcome: Outcome) -> dict[str, object]:
    return {
        "vm": outcome.vm,
        "state": outcome.state,
        "result": outcome.result,
        "error": error_data(outcome.error) if outcome.error else None,
    }


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if errors:
        return exit_code_of(errors) if len(errors) == len(outcomes) else 1
    return PARTIAL_EXIT if any(outcome.state == "partial" for outcome in outcomes) else 0
