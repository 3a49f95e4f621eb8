"""`vmborg hold`: keep an archive from being pruned."""

from datetime import UTC, datetime

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.output import exit_code_of
from deployments.cli.words import moment
from infra.errors import VmborgError


@click.command
@click.argument("archive", required=False)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]),
    metavar="DATE",
    help="The hold ends by itself then (UTC).",
)
@pass_context
def command(context: Context, *, archive: str | None, until: datetime | None) -> int:
    """Keep ARCHIVE from being pruned, on every host that prunes its repository; without ARCHIVE, list all holds.

    `vmborg release` ends a hold.
    """
    from tasks.retention.holding import hold, holds

    now = datetime.now(UTC).replace(microsecond=0)
    failures: dict[str, VmborgError] = {}
    if archive is None:
        found, failures = holds(context.config, now)
    else:
        end = until.replace(tzinfo=UTC) if until else None
        found = hold(context.config, archive, until=end, now=now)
    context.output.document({"holds": found, "errors": context.output.errors_of(failures)})
    if found:
        rows = [
            (each.archive, each.repository, moment(each.since), moment(each.until) if each.until else "-", each.host)
            for each in found
        ]
        context.output.table(("archive", "repository", "since", "until", "by"), rows)
    elif not failures:
        context.output.line("Nothing is held.")
    return exit_code_of(list(failures.values()))
