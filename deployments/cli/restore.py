"""`vmborg restore`: bring a VM back from an archive. Needs no Prefect."""

import shlex
import uuid as uuids
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.words import duration, size
from infra.errors import UsageError
from infra.hypervisor.restore_trust import ALLOWABLE

if TYPE_CHECKING:
    from tasks.restore import Mode, Restored, Wish

_LEAVE_OUT_HELP = "A disk that is not in the archive (vdb): the VM comes back without it; may be given several times."
_ALLOW_HELP = "Let this through although the archived definition brings it along; may be given several times."


@click.command
@click.argument("vm")
@click.option("--archive", default="latest", metavar="NAME", show_default=True, help="The archive to restore.")
@click.option("--as", "new_name", metavar="NEWNAME", help="Beside the original: new name, UUID, MACs, disks.")
@click.option("--in-place", is_flag=True, help="Over the VM itself, or again under its old name if it is gone.")
@click.option("--files-only", is_flag=True, help="Only the files, below --to DIR; nothing is defined.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Where the files go; else where they were.")
@click.option("--start", is_flag=True, help="Start the VM when it is defined.")
@click.option("--stop", is_flag=True, help="With --in-place: shut the running VM down first.")
@click.option("--flatten", is_flag=True, help="One image a disk instead of a linked clone's chain.")
@click.option("--keep-old", is_flag=True, help="With --in-place: keep the former images, renamed.")
@click.option("--overwrite-devices", is_flag=True, help="With --in-place: write over block devices.")
@click.option("--allow", multiple=True, type=click.Choice(sorted(ALLOWABLE)), metavar="WHAT", help=_ALLOW_HELP)
@click.option("--leave-out", multiple=True, metavar="DISK", help=_LEAVE_OUT_HELP)
@click.option("--repository", default="", metavar="NAME", help="The repository; else that of the VM's policy.")
@pass_context
def command(context: Context, *, vm: str, archive: str, repository: str, **options: object) -> int:
    """Bring VM (a name, or the beginning of a UUID) back from an archive, in exactly one of three ways.

    WHAT --allow takes: chardev, commandline, disk, emulator, filesystem, firmware, hostdev, path, script, seclabel,
    socket; a refusal says which one is meant. Nothing is left of a restore that fails.
    """
    from tasks.restore import Request, restore

    wish = _wish(options)
    request = Request(
        vm=vm,
        wish=wish,
        archive=archive,
        repository=repository,
        start=bool(options["start"]),
        stop=bool(options["stop"]),
        keep_old=bool(options["keep_old"]),
    )
    with context.output.progress(f"restoring {vm}") as bar:
        title = f"restoring {vm}"

        def say(text: str) -> None:
            if context.output.stderr.isatty():
                bar.update(0, text=f"{title}: {text}")
            else:
                context.output.note(f"{title}: {text}")

        result = restore(
            context.config,
            request,
            progress=lambda done, total: bar.update(done, total=total, text=title),
            say=say,
        )
    context.output.document(result)
    _print(context, result)
    return 0


def _wish(options: dict[str, object]) -> "Wish":
    from tasks.restore import Mode, Wish

    mode = _mode(options)
    _require_fit(mode, options)
    to = options["to"]
    return Wish(
        mode=mode,
        name=str(options["new_name"] or "") if mode is Mode.COPY else "",
        uuid=str(uuids.uuid4()) if mode is Mode.COPY else "",
        to=str(to.absolute()) if isinstance(to, Path) else "",
        flatten=bool(options["flatten"]),
        overwrite_devices=bool(options["overwrite_devices"]),
        allow=frozenset(cast("tuple[str, ...]", options["allow"])),
        leave_out=frozenset(cast("tuple[str, ...]", options["leave_out"])),
    )


def _mode(options: dict[str, object]) -> "Mode":
    from tasks.restore import Mode

    chosen = [
        mode
        for mode, wanted in (
            (Mode.COPY, options["new_name"] is not None),
            (Mode.IN_PLACE, options["in_place"]),
            (Mode.FILES, options["files_only"]),
        )
        if wanted
    ]
    if len(chosen) != 1:
        raise UsageError(
            "Say in exactly one way how the VM is to come back: --as NEWNAME, --in-place or --files-only.",
            evidence=f"given: {', '.join(f'--{mode}' for mode in chosen) or 'none of them'}",
            remedy="--as NEWNAME leaves everything that is there as it is. See `vmborg restore --help`.",
        )
    return chosen[0]


def _require_fit(mode: "Mode", options: dict[str, object]) -> None:
    """Raise UsageError for an option that would do nothing in this mode."""
    from tasks.restore import Mode

    fits = {
        "stop": (Mode.IN_PLACE,),
        "keep_old": (Mode.IN_PLACE,),
        "overwrite_devices": (Mode.IN_PLACE,),
        "start": (Mode.COPY, Mode.IN_PLACE),
        "leave_out": (Mode.COPY, Mode.IN_PLACE),
        "to": (Mode.COPY, Mode.FILES),
    }
    for option, modes in fits.items():
        if options[option] and mode not in modes:
            name = option.replace("_", "-")
            only = " or ".join(f"--{each}" for each in modes)
            raise UsageError(f"--{name} goes with {only}, not with --{mode}.", remedy="See `vmborg restore --help`.")
    if mode is Mode.FILES and not options["to"]:
        raise UsageError("--files-only needs --to DIR.", remedy="Name a new or empty directory.")


def _print(context: Context, result: "Restored") -> None:
    from tasks.restore import Mode

    line = context.output.line
    for warning in result.warnings:
        context.output.note(f"Note: {warning}")
    rate = f", {size(result.size / result.seconds)}/s" if result.seconds else ""
    line(f"Restored {result.vm!r} from {result.archive} ({result.consistency}).")
    line(f"  UUID {result.source_uuid}, archived on {result.hypervisor}, repository {result.repository}")
    line(f"  {size(result.size)} of images in {duration(timedelta(seconds=result.seconds))}{rate}")
    for target, path in result.disks.items():
        line(f"  {target}: {path}")
    for path in result.kept:
        line(f"  kept: {path}")
    if result.mode is Mode.FILES:
        if result.definition:
            line(f"To define it with these files: virsh define {shlex.quote(result.definition)}")
        return
    line(f"VM {result.name!r} ({result.uuid}) is defined{' and started' if result.started else ''}.")
    if not result.started:
        line(f"To start it: virsh start {result.uuid}")
