"""`vmborg check`: run the flow check."""

from importlib import import_module
from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.flowrun import console_level, result_of
from deployments.cli.output import error_data, exit_code_of
from deployments.cli.words import size
from deployments.embedded import prefect_api, quiet_environment

if TYPE_CHECKING:
    from tasks.checking.run import Checked


@click.command
@click.option("--verify-data", is_flag=True, help="Read and verify every byte; takes as long as the repository is big.")
@click.option("--repository", metavar="NAME", help="Only this repository.")
@pass_context
def command(context: Context, *, verify_data: bool, repository: str | None) -> int:
    """Check repositories: a slice of their segments, their exported keys, and an archive read back.

    Each call goes on where the last one ended, for `check.slice`. Exit code 1 for damage of any kind.
    """
    from tasks.growth import all_unexpected

    config = context.config
    quiet_environment(console_level(context))
    with prefect_api(config.state_dir) as wait_for_api:
        flow = import_module("flows.check").check
        wait_for_api()
        path = str(context.config_path) if context.config_path else None
        done: list[Checked] = result_of(flow(path, repository, verify_data=verify_data, return_state=True))
    growth = all_unexpected(config.state)
    context.output.document({"repositories": [_data(each) for each in done], "unexpected_growth": growth})
    for each in done:
        _print(context, each)
    for vm, said in growth.items():
        context.output.note(f"{vm}: unexpected growth: {said}")
    return exit_code_of([each.error for each in done if each.error])


def _data(checked: "Checked") -> dict[str, object]:
    return {
        "repository": checked.repository,
        "location": checked.location,
        "checked": checked.kind,
        "seconds": checked.seconds,
        "key": checked.key,
        "samples": list(checked.samples),
        "error": error_data(checked.error) if checked.error else None,
    }


def _print(context: Context, checked: "Checked") -> None:
    if checked.error is not None:
        context.output.error_of(f"repository {checked.repository}", checked.error)
        return
    context.output.line(
        f"Repository {checked.repository}: sound ({checked.kind}, {checked.seconds:.1f} s); {checked.key}."
    )
    for sample in checked.samples:
        context.output.line(f"  read back: {sample.archive}, {sample.files} files, {size(sample.size)}")
