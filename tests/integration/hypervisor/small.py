"""Domains without an operating system, defined or started with their CPUs stopped, and the images for them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4
from xml.sax.saxutils import escape

from infra.errors import DomainNotFound
from infra.hypervisor.connection import Domain, Hypervisor
from infra.process import run

URI = "qemu:///system"
TAG = uuid4().hex[:6]
"""Part of every name here, so that two runs on one host do not meet."""


@dataclass(frozen=True, slots=True)
class Maker:
    """Defines small domains without an operating system; they are gone after the test."""

    hypervisor: Hypervisor
    cleanup: ExitStack

    def define(self, name: str, devices: str = "", *, more: str = "", start: bool = False) -> Domain:
        """A persistent domain, with its CPUs stopped if started."""
        domain = self.hypervisor.define(small_xml(name, devices, more=more))
        self.cleanup.callback(_remove, self.hypervisor, domain.uuid)
        if start:
            domain.start(paused=True)
        return domain

    def transient(self, name: str, devices: str = "") -> Domain:
        """A transient domain, its CPUs stopped."""
        domain = self.hypervisor.create_transient(small_xml(name, devices), paused=True)
        self.cleanup.callback(_remove, self.hypervisor, domain.uuid)
        return domain


def _remove(hypervisor: Hypervisor, uuid: str) -> None:
    try:
        domain = hypervisor.by_uuid(uuid)
        if domain.live_xml():
            domain.destroy()
        if domain.persistent():
            domain.undefine(keep_nvram=False)
    except DomainNotFound:
        return


def small_xml(name: str, devices: str, *, more: str = "", uuid: str = "") -> str:
    """A domain without an operating system; `more` replaces its <os>."""
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"""<domain type='qemu'><name>{escape(name)}</name>{identity}<memory unit='MiB'>32</memory>
        {more or "<os><type arch='x86_64' machine='pc'>hvm</type></os>"}
        <devices><controller type='usb' model='none'/><memballoon model='none'/>{devices}</devices></domain>"""


def disk(target: str, path: Path | str, *, form: str = "qcow2", kind: str = "file", flags: str = "") -> str:
    """A virtio disk, of qcow2 unless told otherwise."""
    source = f"<source {'dev' if kind == 'block' else 'file'}='{path}'/>" if path else ""
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type='{form}'/>{source}"
        f"<target dev='{target}' bus='virtio'/>{flags}</disk>"
    )


def drive(target: str, device: str, bus: str, path: Path | str = "") -> str:
    """A CD-ROM or floppy drive, empty without a path."""
    source = f"<source file='{path}'/>" if path else ""
    readonly = "<readonly/>" if device == "cdrom" else ""
    return f"<disk type='file' device='{device}'>{source}<target dev='{target}' bus='{bus}'/>{readonly}</disk>"


def qcow2(path: Path, *, backing: Path | None = None) -> Path:
    """A new image of 4 MiB, or a clone."""
    options = ["-F", "qcow2", "-b", str(backing)] if backing else []
    size = [] if backing else ["4M"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), *size], timeout=30)
    return path


def raw(path: Path) -> Path:
    """A new sparse file of 4 MiB."""
    path.touch()
    os.truncate(path, 4 << 20)
    return path


@contextmanager
def loop(path: Path) -> Iterator[str]:
    """A block device on a new file of 4 MiB."""
    device = run(["losetup", "--find", "--show", str(raw(path))], timeout=30).stdout.strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device], timeout=30)
