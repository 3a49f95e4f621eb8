"""A host with domains of every kind: they have no operating system, so they start within a second.

What their guest would write is written by qemu's own `qemu-io` command through the disk's device.
"""

import json
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4
from xml.sax.saxutils import escape

from infra.process import run
from tests.e2e.checks import assert_on_bases
from tests.e2e.site import Site, make_site
from tests.guests import Guest, accelerator, image_dir, make_disk, virsh
from tests.integration.bare import image_holds

MIB = 1024**2
SIZE = 8 * MIB
T = TypeVar("T")


class Sources:
    """One installation, one folder of images and the domains of one file of tests. A context manager."""

    site: Site
    folder: Path

    def __init__(self, uri: str, api: str) -> None:
        self.uri = uri
        self.api = api
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = self._stack.enter_context(image_dir("sources"))
        root = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vmborg-site-"))
        self.site = make_site(Path(root, "site"), self.uri, api=self.api)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Hold something until the end."""
        return self._stack.enter_context(context)

    def image(
        self, name: str, image_format: str = "qcow2", *, fill: int = 0, size: int = SIZE, backing: Path | None = None
    ) -> Path:
        """An image, or a linked clone of `backing`; its first MiB is filled with the byte `fill` unless that is 0."""
        path = self.folder / name
        make_disk(path, size=0 if backing else size, format=image_format, formatted=False, backing=backing)
        if fill:
            fill_image(path, image_format, fill)
        return path

    def define(self, name: str, *disks: str, os: str = "", devices: str = "", memory: int = 16) -> Guest:
        """A domain, shut off; see `bare_xml`. It is gone at the end."""
        return self.enter(Guest.define(self.uri, bare_xml(name, *disks, os=os, devices=devices, memory=memory)))

    def backup(self, *vms: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """`vmborg backup` of these, all in one call that ends with `code`; returns how each ended, by name."""
        call = self.site.vmborg("--json", "backup", "--", *vms)
        assert call.code == code, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
        outcomes = {each["vm"]: each for each in call.document["backups"]}
        assert list(outcomes) == list(vms)
        return outcomes

    def archives(self, vm: str) -> list[dict[str, Any]]:
        """What `vmborg list VM` tells, oldest first."""
        found: list[dict[str, Any]] = self.site.ok("list", "--", vm)["archives"]
        return found

    def restore_as(self, vm: str, name: str, *options: str) -> tuple[dict[str, Any], Guest]:
        """`vmborg restore VM --as NAME`; the copy is gone at the end."""
        self._stack.callback(self._forget, name)
        restored = self.site.ok("restore", f"--as={name}", "--to", str(self.folder / name), *options, "--", vm)
        return restored, Guest(self.uri, virsh(self.uri, "dumpxml", restored["uuid"], "--security-info"))

    def _forget(self, name: str) -> None:
        """A copy that does not start stays defined."""
        if name in virsh(self.uri, "list", "--all", "--name").splitlines():
            with Guest(self.uri, virsh(self.uri, "dumpxml", "--domain", name)) as guest:
                guest.destroy()

    def manifest(self, archive: str) -> dict[str, Any]:
        """The manifest of an archive."""
        found: dict[str, Any] = json.loads(self.site.repository.extract_stdout(archive, "vmborg/manifest.json"))
        return found

    def assert_on_bases(self, guest: Guest, bases: dict[str, str]) -> None:
        """On its bases, live and inactive, with no job, overlay or journal entry left."""
        assert_on_bases(self.site, guest, bases, [self.folder])


def bare_xml(name: str, *disks: str, os: str = "", devices: str = "", memory: int = 16) -> str:
    """One CPU, so many MiB, these disks; `os` stands in <os>, `devices` among the devices."""
    return f"""
    <domain type='{accelerator()}'><name>{escape(name)}</name><uuid>{uuid4()}</uuid>
      <memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='q35'>hvm</type>{os}</os><features><acpi/></features>
      <devices>{"".join(disks)}<controller type='usb' model='none'/>
        <controller type='scsi' model='virtio-scsi'/><memballoon model='none'/>{devices}</devices></domain>"""


def disk(target: str, path: Path | str, image_format: str = "qcow2", *, more: str = "", driver: str = "") -> str:
    """A disk in a file; see `drive`."""
    return drive(target, f"<source file='{path}'/>", image_format=image_format, more=more, driver=driver)


def drive(
    target: str,
    source: str = "",
    *,
    kind: str = "file",
    device: str = "disk",
    image_format: str = "raw",
    more: str = "",
    driver: str = "",
) -> str:
    """A <disk> with the alias ua-TARGET. `more` stands in it, `driver` are more attributes of its <driver>."""
    bus = "sata" if device == "cdrom" else {"vd": "virtio", "fd": "fdc"}.get(target[:2], "scsi")
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{image_format}' {driver}/>{source}"
        f"<target dev='{target}' bus='{bus}'/>{more}<alias name='ua-{target}'/></disk>"
    )


def fill_image(path: Path | str, image_format: str, byte: int, *, offset: int = 0) -> None:
    """Fill a MiB of an image that nobody has open."""
    run(["qemu-io", "-f", image_format, "-c", f"write -P {byte} {offset} {MIB}", str(path)], timeout=60)


def guest_io(guest: Guest, target: str, *commands: str) -> None:
    """What the guest itself would do to its virtio disk: qemu-io commands such as `write -P 7 0 1M`.

    `read -P 7 0 1M` fails if the disk holds anything else there.
    """
    device = f"/machine/peripheral/ua-{target}/virtio-backend"
    for command in commands:
        answer = virsh(guest.uri, "qemu-monitor-command", guest.uuid, "--hmp", f'qemu-io -d {device} "{command}"')
        assert "rror" not in answer, answer
        assert "verification failed" not in answer, answer


def assert_holds(path: Path | str, image_format: str, bytes_by_mib: Sequence[int]) -> None:
    """The first MiB of an image is filled with the first byte, and so on, seen through its whole chain."""
    for number, byte in enumerate(bytes_by_mib):
        assert image_holds(path, image_format, byte, offset=number * MIB), f"MiB {number} of {path} is not {byte}"
