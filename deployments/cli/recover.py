"""`vmborg recover`: put VMs that dead runs left on overlays back. Needs no Prefect."""

import click

from deployments.cli.context import Context, pass_context
from infra.errors import DomainBusy, RecoveryFailed
from tasks.recover_all import recover_all
from tasks.recovery import Recovery


@click.command
@click.argument("vm", required=False)
@pass_context
def command(context: Context, *, vm: str | None) -> int:
    """Put VMs back on their own disks after a run that died; only VM, if it is named.

    What dead commands left mounted of archives is taken away.

    A VM that needs nothing, or that a live backup works on, is not touched. Exit code 1 if one could not be put back.
    """
    recoveries = recover_all(context.config, only=vm)
    if vm is not None and not recoveries:
        context.hypervisor().find(vm)  # a misspelt name must not look like good news
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
