"""`vmborg deploy`: register this host's deployments, limits and schedules on a Prefect server."""

from pathlib import Path

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.flowrun import console_level
from deployments.embedded import configured_api, prefect_api, quiet_environment
from infra.config.load import DEFAULT_PATH, locate
from infra.errors import ProcessError, UsageError


@click.command
@click.option("--dry-run", is_flag=True, help="Tell what would be done and change nothing.")
@pass_context
def command(context: Context, *, dry_run: bool) -> int:
    """Register what the configuration asks for on the Prefect server; remove what it does not name any more.

    The server is that of PREFECT_API_URL or of the active Prefect profile. What is as it should be is left alone, so a
    second call changes nothing.
    """
    config = context.config
    if not configured_api():
        raise UsageError(
            "There is no Prefect server to deploy to.",
            evidence="neither PREFECT_API_URL nor a Prefect profile names one",
            remedy="Start one (docs/scheduling.md, 'Prefect server and worker') and set PREFECT_API_URL.",
        )
    quiet_environment(console_level(context))
    with prefect_api(config.state_dir):
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.exceptions import PrefectException

        from deployments.registry.changes import Changes
        from deployments.registry.deploy import deploy

        changes = Changes(dry_run=dry_run)
        try:
            with get_client(sync_client=True) as client:
                deploy(client, config, _path(context), changes)
        except (httpx.HTTPError, PrefectException) as error:
            raise ProcessError(
                "The Prefect server did not take what was to be deployed.",
                evidence=f"{configured_api()}: {type(error).__name__}: {error}",
                remedy="Look at its log; `vmborg deploy` can be called again, it goes on where it stopped.",
            ) from error
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
