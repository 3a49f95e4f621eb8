"""`vmborg status`: one line a VM and a dump host. For people, and for monitoring systems by its exit code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.words import duration, moment

if TYPE_CHECKING:
    from tasks.dumps.status import DumpStatus


@click.command
@pass_context
def command(context: Context) -> int:
    """Show for each VM of this host, and each dump host, its last good archive and whether that is good enough.

    Exit code as of monitoring plugins: 0 ok, 1 warning, 2 critical, 3 unknown.
    """
    from tasks.status import read_status

    status = read_status(context.config)
    context.output.document(status)
    context.output.table(
        ("status", "VM", "state", "last good archive", "age", "objective", "consistency", "what"),
        [
            (
                vm.health.value,
                vm.vm,
                vm.state,
                moment(vm.time),
                duration(vm.age) if vm.age is not None else "-",
                duration(vm.objective) if vm.objective is not None and vm.excluded_by is None else "-",
                vm.consistency or "-",
                f"{vm.text}; {vm.remedy}" if vm.remedy else vm.text,
            )
            for vm in status.vms
        ],
        right=("age", "objective"),
    )
    _print_dumps(context, status.dumps)
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


def _print_dumps(context: Context, dumps: "Sequence[DumpStatus]") -> None:
    if not dumps:
        return
    context.output.table(
        ("status", "dump host", "last good archive", "age", "objective", "what"),
        [
            (
                dump.health.value,
                dump.host,
                moment(dump.time),
                duration(dump.age) if dump.age is not None else "-",
                duration(dump.objective) if dump.objective is not None else "-",
                f"{dump.text}; {dump.remedy}" if dump.remedy else dump.text,
            )
            for dump in dumps
        ],
        right=("age", "objective"),
    )
