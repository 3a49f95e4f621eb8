"""`vmborg deploy`: register this host's deployments, limits, schedules and alerts on a Prefect server."""

from pathlib import Path

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.server import prefect_client
from infra.config.load import DEFAULT_PATH, locate


@click.command
@click.option("--dry-run", is_flag=True, help="Tell what would be done and change nothing.")
@pass_context
def command(context: Context, *, dry_run: bool) -> int:
    """Register what the configuration asks for on the Prefect server; remove what it does not name any more.

    The server is that of PREFECT_API_URL or of the active Prefect profile. What is as it should be is left alone, so a
    second call changes nothing.
    """
    with prefect_client(context) as client:
        from deployments.registry.changes import Changes
        from deployments.registry.deploy import deploy

        changes = Changes(dry_run=dry_run)
        deploy(client, context.config, _path(context), changes)
    document = changes.data()
    context.output.document(document)
    for kind, names in document.items():
        for name in names if kind != "unchanged" else []:
            context.output.line(f"{'would be ' if dry_run else ''}{kind}: {name}")
    context.output.line(f"{len(document['unchanged'])} unchanged.")
    return 0


def _path(context: Context) -> Path | None:
    """The configuration's path as a parameter of the deployments, None where the flows look by themselves."""
    path = locate(context.config_path)
    return None if path == DEFAULT_PATH else path
