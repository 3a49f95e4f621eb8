"""What a killed run of the tests left on this host: its folders of images, and the domains whose disks lie in them."""

import fcntl
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import defusedxml.ElementTree as SafeET

from infra.errors import CommandFailed
from infra.process import run
from tasks.restore.workspace import is_abandoned
from tests.guests.guest import Guest
from tests.guests.virsh import virsh

IMAGES = Path("/var/lib/libvirt/images")
_PREFIX = "vmborg-tests-"


@contextmanager
def image_dir(prefix: str = "images") -> Iterator[Path]:
    """A directory that qemu's own user may enter; removed with everything in it at the end.

    It is locked as long as it is in use. The kernel unlocks it when the process ends, however it ends, so that the
    next run can tell what nobody uses any more.
    """
    with _locked(IMAGES):
        path = Path(tempfile.mkdtemp(dir=IMAGES, prefix=f"{_PREFIX}{prefix}-"))
        path.chmod(0o755)
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        shutil.rmtree(path)
        os.close(held)


def remove_leftovers(uri: str) -> list[str]:
    """Remove the folders of killed runs and the domains with a disk in one; returns what was removed, by name.

    A domain that a killed run left keeps its name, and the next run could not define its own.
    """
    removed: list[str] = []
    with _locked(IMAGES):
        folders = [folder for folder in sorted(IMAGES.glob(f"{_PREFIX}*")) if is_abandoned(folder)]
        for uuid in virsh(uri, "list", "--all", "--uuid").split() if folders else ():
            with suppress(CommandFailed):  # gone since: another run's
                xml = virsh(uri, "dumpxml", uuid, "--security-info")
                if any(file.is_relative_to(folder) for file in _files(SafeET.fromstring(xml)) for folder in folders):
                    with Guest(uri, xml) as guest:
                        removed.append(guest.name)
        for folder in folders:
            for place in _mounted_below(folder):
                run(["umount", str(place)], timeout=60)
            shutil.rmtree(folder)
            removed.append(folder.name)
    return removed


def _mounted_below(folder: Path) -> list[Path]:
    """File systems that are mounted in it, the innermost first."""
    mounted = (Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines())
    return sorted((place for place in mounted if place.is_relative_to(folder)), reverse=True)


def _files(domain: ET.Element) -> list[Path]:
    """All files that it names: its disks, its serial log, its firmware's variables."""
    named = [element.get(key) for element in domain.iter("source") for key in ("file", "path")]
    return [Path(name) for name in (*named, domain.findtext("./os/nvram")) if name]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time, so that nobody takes away a folder between its making and its locking."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
