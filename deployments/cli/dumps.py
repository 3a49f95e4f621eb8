"""`vmborg dumps`: dumps of databases, pulled over SSH. A verb of it is a file of deployments/cli/dump_verbs."""

import click

from deployments.cli.dump_verbs import guest_setup, list_dumps, pull, restore, trust


@click.group("dumps")
def command() -> None:
    """Pull dumps of databases over SSH, list, restore and trust."""


for _verb in (pull, list_dumps, restore, trust, guest_setup):
    command.add_command(_verb.command)
