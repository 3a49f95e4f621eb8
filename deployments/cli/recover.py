"""`vmborg recover`: put VMs that dead runs left on overlays back. Needs no Prefect."""

import click

from deployments.cli.context import Context, pass_context
from infra.errors import DomainBusy, RecoveryFailed, UsageError
from tasks.checkpoints import remove_all_checkpoints
from tasks.recover_all import recover_all
from tasks.recovery import Recovery


@click.command
@click.argument("vm", required=False)
@click.option(
    "--drop-checkpoints",
    is_flag=True,
    help="Remove vmborg's checkpoints of VM too; its next backup reads whole disks once.",
)
@pass_context
def command(context: Context, *, vm: str | None, drop_checkpoints: bool) -> int:
    """Put VMs back on their own disks after a run that died; only VM, if it is named.

    What dead commands left mounted of archives is taken away. Before VM is reverted to an internal snapshot or
    undefined, --drop-checkpoints removes what stands in the way.

    A VM that needs nothing, or that a live backup works on, is not touched. Exit code 1 if one could not be put back.
    """
    if drop_checkpoints and vm is None:
        raise UsageError("--drop-checkpoints needs the name of a VM.", remedy="vmborg recover --drop-checkpoints VM")
    recoveries = recover_all(context.config, only=vm)
    if vm is not None and not recoveries:
        context.hypervisor().find(vm)  # a misspelt name must not look like good news
    if drop_checkpoints and vm is not None and not any(recovery.error for recovery in recoveries):
        recoveries.append(remove_all_checkpoints(context.config, context.hypervisor(), vm))
    context.output.document({"recovered": recoveries})
    if not recoveries:
        context.output.line("Nothing to recover: no run was left open.")
    for recovery in recoveries:
        for action in recovery.actions:
            context.output.line(f"{recovery.name}: {action}")
    failed = [recovery for recovery in recoveries if recovery.error]
    for recovery in failed:
        context.output.error_of(recovery.name, _as_error(recovery))
    return 1 if any(not recovery.busy or vm is not None for recovery in failed) else 0


def _as_error(recovery: Recovery) -> RecoveryFailed | DomainBusy:
    if recovery.busy:
        return DomainBusy("A run is working on this VM; it was left alone.", evidence=recovery.error)
    return RecoveryFailed(
        "This VM is not back on its own disks yet.",
        evidence=recovery.error,
        remedy="Mend what the evidence names and run `vmborg recover` again. Do not delete its overlay.",
    )
