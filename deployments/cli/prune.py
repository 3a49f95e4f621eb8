"""`vmborg prune`: run the flow prune."""

from typing import TYPE_CHECKING, Any

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.flowrun import calling
from deployments.cli.output import error_data, exit_code_of
from deployments.cli.words import size

if TYPE_CHECKING:
    from tasks.retention.model import Pruned


@click.command
@click.option("--dry-run", is_flag=True, help="Tell the fate of each archive and change nothing.")
@click.option("--repository", metavar="NAME", help="Only this repository.")
@pass_context
def command(context: Context, *, dry_run: bool, repository: str | None) -> int:
    """Delete the archives that no rule keeps, by name, and free their space.

    The newest good archive of a VM and what is held stay, whatever the rules say. Only the repository's maintainer
    deletes; with append_only nothing is deleted. Exit code 1 if a repository could not be pruned.
    """
    with calling(context, "prune") as prune:
        done: list[Pruned] = prune(repository, dry_run=dry_run)
    _print(context, done, dry_run=dry_run)
    return exit_code_of([each.error for each in done if each.error])


def _print(context: Context, done: "list[Pruned]", *, dry_run: bool) -> None:
    from tasks.retention.model import as_data

    data = [as_data(each) | {"error": error_data(each.error) if each.error else None} for each in done]
    context.output.document({"dry_run": dry_run, "repositories": data})
    for each, facts in zip(done, data, strict=True):
        if each.error is not None:
            context.output.error_of(f"repository {each.repository}", each.error)
            continue
        _print_one(context, each, facts)


def _print_one(context: Context, pruned: "Pruned", facts: dict[str, Any]) -> None:
    columns = ("source", "stage", "time", "archive", "fate", "rule")
    table = [tuple(row[column] for column in columns) for row in facts["archives"]]
    if table:
        context.output.table(columns, table)
    count = sum(row["fate"] == "pruned" for row in facts["archives"])
    name = f"Repository {pruned.repository}"
    if pruned.withheld:
        context.output.line(f"{name}: {count} of {len(table)} archives would go; nothing deleted: {pruned.withheld}.")
    else:
        freed = f", about {size(pruned.freed)} freed" if pruned.freed is not None else ""
        context.output.line(f"{name}: {count} of {len(table)} archives deleted{freed}.")
    for note in pruned.notes:
        context.output.line(f"  {note}")
