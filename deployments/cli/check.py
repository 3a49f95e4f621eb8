"""`vmborg check`: run the flow check."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.flowrun import calling
from deployments.cli.output import error_data, exit_code_of
from deployments.cli.words import size

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

    with calling(context, "check") as check:
        done: list[Checked] = check(repository, verify_data=verify_data)
    growth = all_unexpected(context.config.state)
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
