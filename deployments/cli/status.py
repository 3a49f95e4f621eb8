"""`vmborg status`: one line a VM and a dump host. For people, and for monitoring systems by its exit code."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context

if TYPE_CHECKING:
    from tasks.status import Status


@click.command
@pass_context
def command(context: Context) -> int:
    """Show for each VM of this host, and each dump host, its last good archive and whether that is good enough.

    Exit code as of monitoring plugins: 0 ok, 1 warning, 2 critical, 3 unknown.
    """
    from tasks.status import read_status

    status = read_status(context.config)
    context.output.document(status)
    _print_sources(context, status)
    for problem in status.problems:
        context.output.line(f"{problem.health.value}: {problem.subject}: {problem.text}")
        if problem.remedy:
            context.output.line(f"    {problem.remedy}")
    context.output.line(f"{status.health.value}: {_summary(len(status.vms), len(status.dumps))}")
    return status.health.exit_code


def _summary(vms: int, dumps: int) -> str:
    count = "1 VM" if vms == 1 else f"{vms} VMs"
    hosts = "1 dump host" if dumps == 1 else f"{dumps} dump hosts"
    return f"{count}, {hosts}" if dumps else count


def _print_sources(context: Context, status: "Status") -> None:
    """The same cells that the dashboard's fleet shows."""
    from tasks.dashboard.cells import LESS, RIGHT, lines

    found = [line.cells for line in lines(status)]
    if found:
        columns = tuple(found[0])
        context.output.table(columns, [tuple(cells.values()) for cells in found], right=RIGHT, less=LESS)
