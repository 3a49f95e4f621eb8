"""`vmborg boot`: a VM out of an archive, at once. Needs no Prefect."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.words import printable, size
from infra.errors import TargetExists, UsageError
from infra.hypervisor.restore_trust import ALLOWABLE
from tasks.health import vm_argument

if TYPE_CHECKING:
    from tasks.boot import Booted, Wanted

_KEEP_HELP = "Then copy its disks into this folder while it runs; with a VM that boot made: go on with that."
_ALLOW_HELP = "Let this through although the archived definition brings it along; may be given several times."
_LEAVE_OUT_HELP = "A disk that is not in the archive (vdb): the VM comes without it; may be given several times."


@click.command
@click.argument("vm", required=False)
@click.option("--archive", default="latest", metavar="NAME", show_default=True, help="The archive to boot.")
@click.option("--as", "new_name", default="", metavar="NAME", help="The new VM's name; else VM-boot.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help=_KEEP_HELP)
@click.option("--discard", default="", metavar="NAME", help="End a VM that boot made, with all that it wrote.")
@click.option("--allow", multiple=True, type=click.Choice(sorted(ALLOWABLE)), metavar="WHAT", help=_ALLOW_HELP)
@click.option("--leave-out", multiple=True, metavar="DISK", help=_LEAVE_OUT_HELP)
@click.option("--repository", default="", metavar="NAME", help="The repository; else that of the VM's policy.")
@pass_context
def command(
    context: Context, *, vm: str | None, new_name: str, keep: Path | None, discard: str, **options: object
) -> int:
    """Boot VM out of an archive at once: its disks stay there and are only read; what the guest writes goes beside.

    It is a new VM with its own UUID and MACs. It runs as long as the archive is there; --keep DIR lets it stay.
    Interrupted, the same call goes on. Exit code 1: it did not start, and nothing of it is left; or it runs, and the
    copy waits.
    """
    from tasks.boot import boot

    if bool(vm) == bool(discard) or (discard and (new_name or keep)):
        raise UsageError("Name the VM to boot, or --discard NAME alone.", remedy="See `vmborg boot --help`.")
    if discard:
        return _discard(context, discard)
    folder = keep.absolute() if keep else None
    wanted = _wanted(str(vm), new_name, folder, options)
    if folder and (name := _booted_before(context, wanted)):
        return _keep(context, name, folder, None)
    done = boot(context.config, wanted, say=context.output.note)
    _print(context, done)
    if folder:
        return _keep(context, done.name, folder, done)
    context.output.document(done)
    context.output.line(f"To let it stay: vmborg boot --keep DIR {vm_argument(done.name)}")
    context.output.line(f"To end it with all that it wrote: vmborg boot --discard {shlex.quote(done.name)}")
    return 0


def _wanted(vm: str, new_name: str, keep: Path | None, options: dict[str, object]) -> "Wanted":
    from tasks.boot import Choice, Wanted

    allow, leave_out = (frozenset(cast("tuple[str, ...]", options[key])) for key in ("allow", "leave_out"))
    choice = Choice(new_name, str(keep or ""), allow, leave_out)
    return Wanted(vm, str(options["archive"]), str(options["repository"]), choice)


def _booted_before(context: Context, wanted: "Wanted") -> str:
    """The name of the VM that this call means to keep, if it runs already; "" if it is to be booted."""
    from tasks.boot.known import find_booted

    new_name = wanted.choice.name
    if not new_name and (found := find_booted(context.config, wanted.vm)):
        return found[1].name
    found = find_booted(context.config, new_name or f"{wanted.vm}-boot")
    if found is None:
        return ""
    view, booted = found
    same = wanted.archive in {"latest", view.archive} and wanted.repository in {"", view.repository}
    if not same or view.vm != wanted.vm:
        raise TargetExists(
            f"The VM {booted.name!r} was booted already, out of another archive; nothing was changed.",
            evidence=f"{view.archive} in the repository {view.repository!r}",
            remedy="Choose another name with --as, or leave --archive and --repository out to go on with this one.",
        )
    return booted.name


def _keep(context: Context, name: str, folder: Path, booted: "Booted | None") -> int:
    from tasks.boot import keep_booted

    title = f"copying {name}"
    try:
        with context.output.progress(title) as bar:
            kept = keep_booted(
                context.config,
                name,
                folder,
                progress=lambda done, total: bar.update(done, total=total, text=title),
            )
    except (KeyboardInterrupt, SystemExit):
        context.output.note(
            f"{name} runs on. To go on with its copy: vmborg boot --keep {shlex.quote(str(folder))} {vm_argument(name)}"
        )
        raise
    context.output.document({"booted": booted, "kept": kept})
    line = context.output.line
    line(f"{kept.name} stands on files of its own, {size(kept.size)}; the archive {kept.archive} is not used any more.")
    for target, path in kept.disks.items():
        line(f"  {target}: {path}")
    return 0


def _print(context: Context, done: "Booted") -> None:
    for warning in done.warnings:
        context.output.note(f"Note: {warning}")
    context.output.line(f"VM {done.name!r} ({done.uuid}) runs out of {done.archive} ({done.consistency}).")
    for target, path in done.disks.items():
        context.output.line(f"  {target}: what it writes goes to {path}")


def _discard(context: Context, name: str) -> int:
    from tasks.boot import discard

    vm, actions = discard(context.config, name)
    context.output.document({"discarded": vm.name, "uuid": vm.uuid, "actions": actions})
    for action in actions:
        context.output.line(printable(action))
    context.output.line(f"The VM {vm.name} is gone.")
    return 0
