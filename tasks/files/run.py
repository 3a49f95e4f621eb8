"""`ls`, `get`, `mount` and `umount` of a guest's files, each from the archive's name to the answer."""

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from infra.config.models import Config
from infra.errors import ArchiveIncomplete, StorageError, TargetExists
from infra.errors_views import GuestPathError, ViewNotFound
from infra.guestfs.session import Appliance, Drive, appliance
from infra.journal.views import OpenView, ViewJournal
from infra.process import run
from tasks.files.get import bring, plain
from tasks.files.tree import Tree, mount_tree
from tasks.restore.archive import LATEST
from tasks.views.opening import Chosen, chosen_archive
from tasks.views.view import View, ViewDisk, ViewImage, close_view, open_view, update

Say = Callable[[str], None]

_HEAD_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Source:
    """Which archive."""

    vm: str
    archive: str = LATEST
    repository: str = ""
    by_disk: bool = False  # each file system by the name of its disk, not as the guest mounts them


@dataclass(frozen=True, slots=True)
class Listing:
    """What is at a path of the guest."""

    archive: str
    path: str
    text: str  # as ls -la prints it; of the tree's root by disk: nothing
    file_systems: dict[str, str]  # kind by where it is
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Got:
    """What was brought. Bytes."""

    archive: str
    to: str
    files: int
    size: int
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


@contextmanager
def opened_tree(config: Config, source: Source, say: Say) -> Generator[tuple[Chosen, Appliance, Tree]]:
    """The guest's files, for the block; all that was made is taken away after it."""
    with chosen_archive(config, source.vm, archive=source.archive, repository=source.repository, say=say) as chosen:
        view = open_view(chosen.repository, chosen.opened.manifest, chosen.entry, chosen.journal, lock=True)
        _require_readable(view)
        say("starting the appliance that reads its file systems")
        with appliance(_drives(view, chosen.work), work=chosen.work, remember=config.state.without_kvm) as started:
            yield chosen, started, mount_tree(started, _targets(view), by_disk=source.by_disk)
        close_view(view.entry, chosen.journal)


def _require_readable(view: View) -> None:
    """Raise ArchiveIncomplete unless each image can be read at its beginning: qemu would say only that it ended."""
    for disk in view.disks:
        for image in disk.chain:
            try:
                with Path(image.path).open("rb") as file:
                    file.read(_HEAD_BYTES)
            except OSError as error:
                raise ArchiveIncomplete(
                    "The archive is damaged, or its repository does not answer.",
                    evidence=f"{disk.target}: {image.path}: {error.strerror}",
                    remedy="Name another with --archive, and look at the repository with vmborg check.",
                ) from error


def _targets(view: View) -> list[str]:
    return [disk.target for disk in view.disks]


def _drives(view: View, work: Path) -> list[Drive]:
    if not view.disks:
        raise GuestPathError("The archive holds no disk.", remedy="See `vmborg list`; what is excluded is not in it.")
    return [_drive(disk, work) for disk in view.disks]


def _drive(disk: ViewDisk, work: Path) -> Drive:
    """The image itself, or a linked clone's, told where in the view its template is."""
    top = disk.chain[0]
    if len(disk.chain) == 1:
        return Drive(top.path, top.format)
    front = work / f"{disk.target}.qcow2"
    backing = f"json:{json.dumps(_node(disk.chain))}"
    size = [str(disk.size)]
    run(
        ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", top.format, str(front), *size],
        timeout=60,
    )
    return Drive(str(front), "qcow2")


def _node(chain: Sequence[ViewImage]) -> dict[str, object]:
    node: dict[str, object] = {"driver": chain[0].format, "file": {"driver": "file", "filename": chain[0].path}}
    if len(chain) > 1:
        node["backing"] = _node(chain[1:])
    return node


def list_files(config: Config, source: Source, path: str, *, say: Say) -> Listing:
    """What is at a path. Raises GuestPathError, GuestEncrypted, ApplianceFailed, and what opening the view raises."""
    path = plain(path)
    with opened_tree(config, source, say) as (chosen, started, tree):
        text = "" if path == "/" and not tree.is_guests else started.do("ll", path)
        return Listing(chosen.opened.name, path, text, dict(tree.places), tree.warnings)


def get_files(config: Config, source: Source, paths: Sequence[str], to: Path, *, say: Say) -> Got:
    """Bring files and folders below `to`, all or none. Raises as `list_files`, and StorageError, TargetExists."""
    wanted = [plain(path) for path in paths]
    with opened_tree(config, source, say) as (chosen, started, tree):
        done = bring(started, wanted, to, chosen.work)
        return Got(chosen.opened.name, str(to), done.files, done.size, tuple(done.left_out), tree.warnings)


def mount_files(config: Config, source: Source, directory: Path, *, say: Say) -> Listing:
    """Show the guest's files at `directory`, which must be empty, until `unmount_files`. Raises as `list_files`."""
    _require_empty(directory)
    with chosen_archive(config, source.vm, archive=source.archive, repository=source.repository, say=say) as chosen:
        entry = replace(chosen.entry, mounted=str(directory))
        view = open_view(chosen.repository, chosen.opened.manifest, entry, chosen.journal)
        _require_readable(view)
        say("starting the appliance that reads its file systems")
        with appliance(
            _drives(view, chosen.work), work=chosen.work, remember=config.state.without_kvm, detached=True
        ) as started:
            tree = mount_tree(started, _targets(view), by_disk=source.by_disk)
            started.do("mount-local", str(directory), "readonly:true")
            started.send("mount-local-run")
            _require_mounted(directory)
            update(entry, chosen.journal, standing=True)
            started.leave_alone()
        return Listing(chosen.opened.name, "/", "", dict(tree.places), tree.warnings)


def _require_empty(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()) or os.path.ismount(directory):
            raise TargetExists(f"{directory} is not empty.", remedy="Name a new or empty folder.")
    except OSError as error:
        raise StorageError(f"Nothing can be mounted at {directory}.", evidence=str(error)) from error


def _require_mounted(directory: Path) -> None:
    if not os.path.ismount(directory):
        raise StorageError(f"The guest's files are not shown at {directory}.", evidence="nothing is mounted there")


def unmount_files(config: Config, directory: Path) -> OpenView:
    """End what `mount_files` began. Raises ViewNotFound, DomainBusy, ProcessError."""
    journal = ViewJournal(config.state.views)
    view = next((each for each in journal.entries().views if each.mounted == str(directory)), None)
    if view is None:
        known = ", ".join(each.mounted for each in journal.entries().views if each.mounted)
        raise ViewNotFound(
            f"Nothing of an archive is mounted at {directory}.",
            evidence=f"mounted: {known}" if known else "no archive's files are mounted on this host",
            remedy="Name the folder that was given to `vmborg files VM mount`.",
        )
    with journal.hold(view.number):
        close_view(view, journal)
    return view
