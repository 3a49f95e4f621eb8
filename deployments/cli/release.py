"""`vmborg release`: end a hold."""

import click

from deployments.cli.context import Context, pass_context


@click.command
@click.argument("archive")
@pass_context
def command(context: Context, *, archive: str) -> int:
    """End every hold of ARCHIVE: the next prune judges it by its rules again."""
    from tasks.retention.holding import release

    ended = release(context.config, archive)
    context.output.document({"released": ended})
    for each in ended:
        context.output.line(f"{each.archive} in repository {each.repository} is not held any more.")
    return 0
