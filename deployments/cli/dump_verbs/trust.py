"""`vmborg dumps trust`: pin a host key after a person has compared its fingerprint."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context

if TYPE_CHECKING:
    from tasks.dumps.trust import Shown


@click.command("trust")
@click.argument("host", metavar="HOST")
@click.option("--yes", is_flag=True, help="Do not ask. Compare the fingerprint by other means then.")
@pass_context
def command(context: Context, *, host: str, yes: bool) -> int:
    """Show the host key of HOST (and of its jump host, first), and pin it."""
    from tasks.dumps.trust import pin, shown_keys

    pinned: list[dict[str, object]] = []
    for shown in shown_keys(context.config, host):
        if shown.known:
            context.output.line(f"{shown.name}: {shown.key.kind} {shown.key.fingerprint} is pinned already.")
        else:
            _describe(context, shown)
            if not (yes or click.confirm("Is this the host's own key?", err=True)):
                context.output.line("Nothing was pinned.")
                context.output.document({"host": host, "keys": pinned})
                return 1
            pin(shown)
            context.output.line("It is pinned.")
        pinned.append({"name": shown.name, "type": shown.key.kind, "fingerprint": shown.key.fingerprint})
    context.output.document({"host": host, "keys": pinned})
    return 0


def _describe(context: Context, shown: "Shown") -> None:
    context.output.note(f"{shown.name} at {shown.place} shows {shown.key.kind} {shown.key.fingerprint}")
    if shown.pinned is not None:
        context.output.note(f"until now pinned: {shown.pinned.kind} {shown.pinned.fingerprint}")
    context.output.note("Compare it on the host itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
