"""`vmborg files`: single files of a VM, out of an archive. Needs no Prefect."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.words import size
from infra.errors import UsageError

if TYPE_CHECKING:
    from tasks.files.run import Source

_ACTIONS = ("ls", "get", "mount", "umount")


@click.command
@click.argument("vm")
@click.argument("action", type=click.Choice(_ACTIONS))
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--archive", default="latest", metavar="NAME", show_default=True, help="The archive to read.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="With get: where the files go.")
@click.option("--disks", is_flag=True, help="Show each file system by its disk (/vda1), not as the guest mounts them.")
@click.option("--repository", default="", metavar="NAME", help="The repository; else that of the VM's policy.")
@pass_context
def command(
    context: Context,
    *,
    vm: str,
    action: str,
    paths: tuple[str, ...],
    archive: str,
    to: Path | None,
    disks: bool,
    repository: str,
) -> int:
    """Read single files of VM out of an archive, without extracting its disks.

    \b
    ls PATH              what is there (without PATH: /)
    get PATH… --to DIR   bring files and folders
    mount DIR            show all of them, read-only
    umount DIR           end that

    Where no operating system is found, the tree's first level are the file systems: /vda1, /vg0-data.
    """  # noqa: D301 - click wants the character itself
    from tasks.files.run import Source

    _require_fit(action, paths, to)
    source = Source(vm, archive, repository, disks)
    _DO[action](context, source, paths, to)
    return 0


def _require_fit(action: str, paths: tuple[str, ...], to: Path | None) -> None:
    counts = {"ls": (0, 1), "get": (1, 1000), "mount": (1, 1), "umount": (1, 1)}
    least, most = counts[action]
    if not least <= len(paths) <= most:
        raise UsageError(f"`files VM {action}` takes {least} to {most} paths.", remedy="See `vmborg files --help`.")
    if (action == "get") != (to is not None):
        raise UsageError("--to DIR goes with get, and get needs it.", remedy="See `vmborg files --help`.")


def _list(context: Context, source: "Source", paths: tuple[str, ...], _to: Path | None) -> None:
    from tasks.files import list_files

    found = list_files(context.config, source, paths[0] if paths else "/", say=context.output.note)
    context.output.document(found)
    _warn(context, found.warnings)
    for place, kind in () if found.text else found.file_systems.items():
        context.output.line(f"{place}  ({kind})")
    for line in found.text.splitlines():
        context.output.line(line)


def _get(context: Context, source: "Source", paths: tuple[str, ...], to: Path | None) -> None:
    from tasks.files import get_files

    got = get_files(context.config, source, paths, (to or Path()).absolute(), say=context.output.note)
    context.output.document(got)
    _warn(context, got.warnings)
    for path in got.left_out:
        context.output.note(f"Note: {path} is a device, socket or pipe; it was left out")
    context.output.line(f"{got.files} files, {size(got.size)}, from {got.archive}, in {got.to}")


def _mount(context: Context, source: "Source", paths: tuple[str, ...], _to: Path | None) -> None:
    from tasks.files import mount_files

    directory = Path(paths[0]).absolute()
    found = mount_files(context.config, source, directory, say=context.output.note)
    context.output.document(found)
    _warn(context, found.warnings)
    context.output.line(f"The files of {found.archive} are at {directory}, read-only.")
    context.output.line(f"To end it: vmborg files {shlex.quote(source.vm)} umount {shlex.quote(str(directory))}")


def _unmount(context: Context, _source: "Source", paths: tuple[str, ...], _to: Path | None) -> None:
    from tasks.files import unmount_files

    view = unmount_files(context.config, Path(paths[0]).absolute())
    context.output.document({"unmounted": view.mounted, "archive": view.archive})
    context.output.line(f"{view.mounted} is unmounted.")


def _warn(context: Context, warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        context.output.note(f"Note: {warning}")


_DO: dict[str, Callable[[Context, "Source", tuple[str, ...], Path | None], None]] = {
    "ls": _list,
    "get": _get,
    "mount": _mount,
    "umount": _unmount,
}
