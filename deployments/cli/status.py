"""`vmborg status`: one line a VM. For people, and for monitoring systems by its exit code."""

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.words import duration, moment


@click.command
@pass_context
def command(context: Context) -> int:
    """Show for each VM of this host its last good archive and whether that is good enough.

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
    for problem in status.problems:
        context.output.line(f"{problem.health.value}: {problem.subject}: {problem.text}")
        if problem.remedy:
            context.output.line(f"    {problem.remedy}")
    context.output.line(f"{status.health.value}: {_summary(len(status.vms))}")
    return status.health.exit_code


def _summary(count: int) -> str:
    return "1 VM" if count == 1 else f"{count} VMs"
