"""The command `vmborg`: global options, the list of verbs, errors and exit codes.

Exit codes: 0 done; 1 failed; 2 usage or configuration; 3 partial; 128 + N ended by signal N. `status` and
`doctor` follow the monitoring-plugin convention: 0 ok, 1 warning, 2 critical (also a wrong configuration),
3 unknown (also a wrong call).

A verb is a file of this folder with a click command called `command`. It is imported when it is called, so that
quick verbs stay quick.
"""

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from difflib import get_close_matches
from importlib import import_module, metadata
from pathlib import Path

import click

from deployments.cli.context import Context
from deployments.cli.signals import Terminated, heed_signals, signal_arrived
from infra.errors import ConfigError, UsageError, VmborgError

VERBS = {
    "init": "Create the repositories that do not exist and export their keys",
    "doctor": "Check this host, its VMs and repositories; say what to do",
    "backup": "Back up VMs now",
    "list": "List archives",
    "restore": "Bring a VM back from an archive",
    "files": "Read single files out of an archive",
    "boot": "Boot a VM out of an archive at once",
    "recover": "Put VMs that dead runs left on overlays back",
    "status": "One line a VM: its last good archive, and whether that is good enough",
    "dumps": "Pull dumps of databases, list, restore and trust",
    "prune": "Delete the archives that no rule keeps",
    "hold": "Keep an archive from being pruned",
    "release": "End a hold",
    "retire": "Show VMs that are gone; forget one",
    "check": "Check repositories, and that archives can be read",
    "drill": "Prove that VMs restore: boot them where they can touch nothing",
    "sync": "Copy a repository to a cloud, or fetch a copy",
    "deploy": "Register this host's deployments and schedules on a Prefect server",
    "install-service": "Write the systemd units of server, worker and recover at boot",
    "drain": "Let what runs here end, so that the worker can be stopped",
    "alerts": "Send a test to everybody who is told when something is wrong",
    "metrics": "What status says, for Prometheus",
    "config": "Check, show and generate the configuration",
}
MONITORS = {"status", "doctor"}  # their exit codes are read by monitoring systems
_UNKNOWN = 3
_HELP = {"--help", "-h"}

logger = logging.getLogger("vmborg")


class Verbs(click.Group):
    """The verbs, imported one by one; each understands the global options too."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs in the order in which they are needed."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"deployments.cli.{cmd_name.replace('-', '_')}").command
        _accept_globals(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the verbs that were meant when there is no such verb."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = get_close_matches(args[0], VERBS, n=1)
            raise UsageError(
                f"There is no verb {args[0]!r}.",
                evidence=f"verbs: {', '.join(VERBS)}",
                remedy=f"Did you mean `vmborg {close[0]}`?" if close else "See `vmborg --help`.",
            )
        ctx.ensure_object(Context).verb = args[0] if args else ""
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _set(attribute: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def remember(ctx: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value:
            setattr(ctx.find_object(Context), attribute, value)

    return remember


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: object) -> None:
    if not value:
        return
    version = metadata.version("vmborg")
    context = ctx.ensure_object(Context)
    context.output.line(f"vmborg {version}")
    context.output.document({"version": version})
    ctx.exit()


def _global_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            callback=_set("config_path"),
            expose_value=False,
            is_eager=True,
            help="The configuration; else $VMBORG_CONFIG, else /etc/vmborg/vmborg.yaml.",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            callback=_set("json"),
            expose_value=False,
            is_eager=True,
            help="Print one JSON document on stdout and nothing else there.",
        ),
        click.Option(
            ["--verbose"],
            is_flag=True,
            callback=_set("verbose"),
            expose_value=False,
            is_eager=True,
            help="Log every step and every program to stderr.",
        ),
    ]


def _accept_globals(command: click.Command) -> None:
    """Let `vmborg list --json` mean what `vmborg --json list` means."""
    taken = {option for parameter in command.params for option in parameter.opts}
    command.params += [option for option in _global_options() if not taken.intersection(option.opts)]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _accept_globals(inner)


cli = Verbs(
    name="vmborg",
    help="Live backups of KVM virtual machines into borg, run by Prefect.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 partial. "
    "status and doctor: 0 ok, 1 warning, 2 critical, 3 unknown.",
    params=[
        *_global_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            callback=_print_version,
            expose_value=False,
            help="Print the version.",
        ),
    ],
    context_settings={"help_option_names": ["--help", "-h"]},
    no_args_is_help=True,
    subcommand_metavar="VERB …",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _mend_streams()
    context = Context()
    # The command line itself may be wrong: then no option was read, and errors must still know their form.
    context.json = "--json" in arguments
    _log_to_stderr(verbose="--verbose" in arguments)
    try:
        heed_signals()
        return _run(arguments, context)
    except VmborgError as error:
        context.output.error(error)
        return _exit_code(error, context.verb)
    except Terminated as ending:
        signal_arrived()
        context.output.error(VmborgError(f"Ended by {ending.signal.name}."))
        return 128 + ending.signal
    except BrokenPipeError:
        # Whoever read us (head, less) has seen enough. Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    finally:
        context.close()


def _run(arguments: list[str], context: Context) -> int:
    try:
        code = _help_as_data(arguments, context) if context.json and _HELP & {*arguments} else _call(arguments, context)
    except click.exceptions.NoArgsIsHelpError as error:
        if context.json:
            raise UsageError("Say which verb.", evidence=error.format_message(), remedy="See its --help.") from error
        context.output.note(error.format_message())
        return UsageError.exit_code
    except click.ClickException as error:
        raise _usage_error(error) from error
    except click.Abort as error:
        raise VmborgError("Given up: no answer to a question.") from error
    except (VmborgError, BrokenPipeError):
        raise
    except Exception as error:
        raise _unexpected(error) from error
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _call(arguments: list[str], context: Context) -> object:
    return cli.main(arguments, prog_name="vmborg", standalone_mode=False, obj=context)


def _help_as_data(arguments: list[str], context: Context) -> object:
    """click prints help on stdout; with --json it becomes the document."""
    output, text = context.output, io.StringIO()  # the output knows the real stdout by now
    with redirect_stdout(text):
        code = _call(arguments, context)
    if text.getvalue():
        output.document({"help": text.getvalue()})
    return code


def _mend_streams() -> None:
    """Python has no stream where a descriptor was closed (`>&-`). A file opened later must not get its number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))


def _usage_error(error: click.ClickException) -> UsageError:
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    usage = ctx.get_usage() if ctx else ""
    command = ctx.command_path if ctx else "vmborg"
    return UsageError(error.format_message(), evidence=usage, remedy=f"See `{command} --help`.")


def _unexpected(error: Exception) -> VmborgError:
    logger.debug("%s", "".join(traceback.format_exception(error)))
    return VmborgError(
        "vmborg met an error that it does not know.",
        evidence="".join(traceback.format_exception_only(error)).strip(),
        remedy="Run it again with --verbose for the whole trace, and report it.",
    )


def _exit_code(error: VmborgError, verb: str) -> int:
    if verb in MONITORS and (isinstance(error, UsageError) or not isinstance(error, ConfigError)):
        return _UNKNOWN
    return error.exit_code


def _log_to_stderr(*, verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
