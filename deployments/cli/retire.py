"""`vmborg retire`: VMs that are gone, and the end of their archives."""

from datetime import UTC, datetime

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.words import moment
from infra.errors import UsageError


@click.command
@click.argument("vm", required=False)
@click.option("--forget", is_flag=True, help="Delete all archives of VM, which must be retired.")
@click.option("--confirm", metavar="NAME", help="The name typed again, where nobody can be asked.")
@pass_context
def command(context: Context, *, vm: str | None, forget: bool, confirm: str | None) -> int:
    """Show the VMs that are gone, or only VM; with --forget delete the archives of VM for ever.

    A VM is retired by `vmborg prune` on its own hypervisor, when libvirt and the configuration know it no more. Held
    archives must be released before it can be forgotten.
    """
    from tasks.retention.holding import forget as forget_vm
    from tasks.retention.holding import gone
    from tasks.retention.run import look_around

    view = look_around(context.config, datetime.now(UTC))
    if forget:
        if vm is None:
            raise UsageError("Say which VM to forget.", remedy="See `vmborg retire`.")
        _require_name(context, vm, confirm)
        deleted = forget_vm(context.config, vm, view)
        context.output.document({"forgotten": vm, "deleted": deleted})
        context.output.line(f"{vm} is forgotten: {len(deleted)} archives are deleted.")
        return 0
    found = [each for each in gone(context.config, view) if vm is None or vm in (each.name, each.uuid)]
    context.output.document({"retired": found})
    rows = [
        (each.name, each.stage.value, moment(each.since), str(each.archives), each.repository, each.owner, each.uuid)
        for each in found
    ]
    if rows:
        headers = ("VM", "stage", "gone since", "archives", "repository", "owner", "UUID")
        context.output.table(headers, rows, right=("archives",))
    else:
        context.output.line("No VM is retired." if vm is None else f"{vm} is not retired.")
    return 0


def _require_name(context: Context, vm: str, confirm: str | None) -> None:
    """Raise UsageError unless the name was typed a second time."""
    if confirm is None and context.output.terminal:
        confirm = click.prompt(f"All archives of {vm} will be deleted. Type its name to go on", err=True)
    if confirm != vm:
        raise UsageError(
            f"{vm!r} is not forgotten: its name was not typed again.",
            evidence="--confirm " + (repr(confirm) if confirm else "is missing"),
            remedy="Add --confirm with the same name.",
        )
