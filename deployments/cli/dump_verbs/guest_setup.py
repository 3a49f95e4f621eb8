"""`vmborg dumps guest-setup`: what to install on a dump host so that our key can dump and nothing else."""

import click

from deployments.cli.context import Context, pass_context
from infra.errors import UsageError


@click.command("guest-setup")
@click.argument("host", metavar="HOST")
@click.option("--script", "part", flag_value="script", help="Print only the script.")
@click.option("--authorized-keys", "part", flag_value="authorized_keys", help="Print only the line for that file.")
@pass_context
def command(context: Context, *, host: str, part: str | None) -> int:
    """Print a forced-command script and an authorized_keys line for HOST, made from its sources."""
    from infra.dumps.guest import SCRIPT, authorized_line, forced_script
    from tasks.dumps.hosts import find_host, public_key

    settings = find_host(context.config, host)
    if settings.key is None:
        raise UsageError(
            f"{host!r} has no key of its own.", evidence="dumps.hosts: key is left out", remedy="Set `key` for it."
        )
    script = forced_script(settings.sources, settings.passwords)
    line = authorized_line(public_key(settings.key, settings.key_passphrase))
    context.output.document({"host": host, "path": SCRIPT, "script": script, "authorized_keys": line})
    if part == "script":
        context.output.line(script.rstrip())
    elif part == "authorized_keys":
        context.output.line(line)
    else:
        context.output.line(f"# On {host}, as root: save this as {SCRIPT}, chmod 0755.\n{script}")
        context.output.line(f"# As one line of ~{settings.user}/.ssh/authorized_keys:\n{line}")
        context.output.line("# Grants for the database user: docs/dumps.md.")
    return 0
