"""`vmborg init`: create the repositories that do not exist and export their keys."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.output import error_data, exit_code_of

if TYPE_CHECKING:
    from tasks.initialise import Initialised


@click.command
@pass_context
def command(context: Context) -> int:
    """Create the state folder and every repository that does not exist, and export their keys.

    What exists stays as it is; the verb can be repeated. Exit code 1 if a repository could not be made.
    """
    from tasks.initialise import initialise

    config = context.config
    done: list[Initialised] = []
    for result in initialise(config):
        _print(context, result)
        done.append(result)
    context.output.document({"state_dir": config.state_dir, "repositories": [_data(result) for result in done]})
    if any(result.key for result in done):
        context.output.line(
            "Store the exported keys, and the passphrases, away from this host and from the repositories: "
            "without them no archive can be read."
        )
    return exit_code_of([result.error for result in done if result.error])


def _print(context: Context, result: "Initialised") -> None:
    if result.error is not None:
        context.output.error_of(f"repository {result.repository}", result.error)
        return
    what = "created" if result.created else "exists already"
    context.output.line(f"Repository {result.repository} at {result.location}: {what}.")
    if result.key is not None:
        context.output.line(f"  Its key is exported to {result.key}.")


def _data(result: "Initialised") -> dict[str, object]:
    return {
        "repository": result.repository,
        "location": result.location,
        "created": result.created,
        "key": result.key,
        "error": error_data(result.error) if result.error else None,
    }
