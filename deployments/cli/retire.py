"""`vmborg retire`: VMs and dump hosts that are gone, and the end of their archives."""

from datetime import UTC, datetime

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.output import exit_code_of
from deployments.cli.words import moment
from infra.errors import UsageError


@click.command
@click.argument("source", metavar="[VM|HOST]", required=False)
@click.option("--forget", is_flag=True, help="Delete all its archives; it must be retired.")
@click.option("--confirm", metavar="NAME", help="The name typed again, where nobody can be asked.")
@pass_context
def command(context: Context, *, source: str | None, forget: bool, confirm: str | None) -> int:
    """Show the VMs and dump hosts that are gone, or only one; with --forget delete its archives for ever.

    A VM is retired by `vmborg prune` on its own hypervisor when libvirt and the configuration know it no more, a dump
    host when the configuration there does not name it any more. Held archives must be released before it can be
    forgotten. Where several bear one name, their ids tell them apart.
    """
    from tasks.retention.holding import forget as forget_source
    from tasks.retention.holding import gone
    from tasks.retention.run import look_around

    view = look_around(context.config, datetime.now(UTC))
    if forget:
        if source is None:
            raise UsageError("Say what to forget.", remedy="See `vmborg retire`.")
        _require_name(context, source, confirm)
        deleted = forget_source(context.config, source, view)
        context.output.document({"forgotten": source, "deleted": deleted})
        context.output.line(f"{source} is forgotten: {len(deleted)} archives are deleted.")
        return 0
    everything, failures = gone(context.config, view)
    found = [each for each in everything if source is None or source in (each.name, each.id)]
    context.output.document({"retired": found, "errors": context.output.errors_of(failures)})
    rows = [
        (
            each.name,
            each.kind,
            each.stage.value,
            moment(each.since),
            str(each.archives),
            each.repository,
            each.owner,
            each.id,
        )
        for each in found
    ]
    if rows:
        headers = ("source", "kind", "stage", "gone since", "archives", "repository", "owner", "id")
        context.output.table(headers, rows, right=("archives",))
    elif not failures:
        context.output.line("Nothing is retired." if source is None else f"{source} is not retired.")
    return exit_code_of(list(failures.values()))


def _require_name(context: Context, name: str, confirm: str | None) -> None:
    """Raise UsageError unless the name was typed a second time."""
    if confirm is None and context.output.terminal:
        confirm = click.prompt(f"All archives of {name} will be deleted. Type its name to go on", err=True)
    if confirm != name:
        raise UsageError(
            f"{name!r} is not forgotten: its name was not typed again.",
            evidence="--confirm " + (repr(confirm) if confirm else "is missing"),
            remedy="Add --confirm with the same name.",
        )
