"""Domains without an operating system, and a hand that writes as their guest would.

They start in a second. qemu's own `qemu-io` command goes through the disk's device, so what it writes lands in the
image that the guest writes to at that moment.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Self, TypeVar
from uuid import uuid4

from infra.hypervisor.commit_live import Deadlines
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.inspect import inspect
from infra.hypervisor.put_back import put_back
from infra.hypervisor.snapshot import overlay_path, take_snapshot
from infra.model import JournalEntry, Overlay, Phase, PutBackReport
from infra.process import run
from tests.guests import DiskSpec, accelerator, image_dir, make_disk, virsh

URI = "qemu:///system"
MIB = 1024**2
SIZE = 16 * MIB
T = TypeVar("T")


class Bare:
    """A domain with nothing to boot. `entry` is the journal entry of the run that `snapshot` began."""

    def __init__(self, hypervisor: Hypervisor, folder: Path, disks: Sequence[DiskSpec]) -> None:
        self.hypervisor = hypervisor
        self.uri = hypervisor.uri
        self.folder = folder
        self.disks = disks
        self.name = f"act-{uuid4().hex[:8]}"
        self.uuid = str(uuid4())
        self.xml = domain_xml(self.name, self.uuid, disks)

    @property
    def domain(self) -> Domain:
        """Looked up anew."""
        return self.hypervisor.by_uuid(self.uuid)

    def define(self) -> "Bare":
        """As a persistent domain, shut off."""
        self.hypervisor.define(self.xml)
        return self

    def start(self) -> "Bare":
        """A persistent domain."""
        self.domain.start()
        return self

    def create(self) -> "Bare":
        """As a transient domain, running."""
        self.hypervisor.create_transient(self.xml)
        return self

    def write(self, target: str, byte: int, *, offset: int = 0, size: int = MIB) -> None:
        """Fill a part of the disk as its guest would, and flush it."""
        self._qemu_io(target, f"write -P {byte} {offset} {size}")
        self._qemu_io(target, "flush")

    def read(self, target: str, byte: int, *, offset: int = 0, size: int = MIB) -> bool:
        """Whether this part of the disk, as its guest sees it, is filled with `byte`."""
        return "Pattern verification failed" not in self._qemu_io(target, f"read -P {byte} {offset} {size}")

    def _qemu_io(self, target: str, command: str) -> str:
        device = f"/machine/peripheral/ua-{target}" + ("/virtio-backend" if target.startswith("vd") else "")
        answer = virsh(self.uri, "qemu-monitor-command", self.uuid, "--hmp", f'qemu-io -d {device} "{command}"')
        assert "rror" not in answer, answer
        return answer

    def snapshot(self, *, phase: Phase = Phase.SNAPSHOTTED) -> JournalEntry:
        """Put every covered disk on an overlay, as a backup does; return what its journal says then."""
        return replace(begin_run(self.domain, self.folder), phase=phase)

    def put_back(
        self,
        entry: JournalEntry,
        *,
        commit_deadline: float = 60,
        pivot_deadline: float = 20,
        pause: float = 0,
        bandwidth: int = 0,
        **listeners: Any,
    ) -> PutBackReport:
        """As a backup does it."""
        deadlines = Deadlines(commit=commit_deadline, pivot=pivot_deadline, pause=pause, bandwidth=bandwidth)
        return put_back(self.hypervisor, entry, deadlines=deadlines, **listeners)

    def definition(self) -> str:
        """The inactive definition, word by word."""
        return virsh(self.uri, "dumpxml", self.uuid, "--inactive", "--security-info")

    def exists(self) -> bool:
        """Whether libvirt knows it."""
        return self.uuid in virsh(self.uri, "list", "--all", "--uuid").split()

    def forget(self) -> None:
        """Stop and undefine it, whatever has become of it."""
        if self.exists() and self.state() != "shut off":
            self.domain.destroy()
        if self.exists():
            self.domain.undefine()

    def sources(self, *, inactive: bool = False) -> dict[str, str]:
        """Disk target to image, asked from virsh."""
        options = ["--inactive"] if inactive else []
        lines = virsh(self.uri, "domblklist", self.uuid, *options).splitlines()
        pairs = (line.split(maxsplit=1) for line in lines if line.strip())
        return {pair[0]: pair[1] for pair in pairs}

    def slow_job(self, overlay: Overlay) -> None:
        """Begin the overlay's commit as a run does that dies: 1 MiB a second, so that it lasts."""
        self.domain.block_commit(overlay.target, base=overlay.base, top=overlay.path, bandwidth=1)

    def hurry(self, target: str) -> None:
        """Let a slow job run as fast as it can."""
        virsh(self.uri, "blockjob", self.uuid, target, "--bandwidth", "0")

    def state(self) -> str:
        """virsh's word."""
        return virsh(self.uri, "domstate", self.uuid)


def begin_run(domain: Domain, folder: Path, *, places: Mapping[str, Path] | None = None) -> JournalEntry:
    """Take the snapshot of a backup; return what its journal says then. Overlays of devices go into `folder`.

    `places` maps disk targets to folders where their overlays go instead.
    """
    run_id = "00c0ffee"
    facts = inspect(domain, exclude_disks=())
    overlays: list[Overlay] = []
    for disk in facts.covered:
        path = overlay_path(disk.base, disk.target, run_id=run_id, overlay_dir=folder)
        if places and disk.target in places:
            path = str(places[disk.target] / Path(path).name)
        overlays.append(Overlay(disk.target, disk.base.path, disk.base.kind, disk.base.format, path))
    take_snapshot(domain, facts, overlays, run_id=run_id)
    return JournalEntry(
        run_id=run_id,
        uuid=facts.uuid,
        name=facts.name,
        hypervisor="here",
        started=datetime.now(UTC),
        phase=Phase.SNAPSHOTTED,
        overlays=tuple(overlays),
    )


def domain_xml(name: str, uuid: str, disks: Sequence[DiskSpec]) -> str:
    """16 MiB, one CPU, the disks, each with the alias ua-TARGET."""
    return f"""
    <domain type='{accelerator()}'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
      <metadata><v:note xmlns:v='urn:vmborg:test'>kept</v:note></metadata>
      <os><type arch='x86_64' machine='q35'>hvm</type></os>
      <devices>{"".join(map(_disk_xml, disks))}
        <controller type='usb' model='none'/>
        <controller type='scsi' model='virtio-scsi'/><memballoon model='none'/></devices></domain>"""


def _disk_xml(disk: DiskSpec) -> str:
    attribute = "dev" if disk.kind == "block" else "file"
    source = f"<source {attribute}='{disk.path}'/>" if disk.path else ""
    bus = "sata" if disk.device == "cdrom" else disk.bus
    return (
        f"<disk type='{disk.kind}' device='{disk.device}'><driver name='qemu' type='{disk.format}' cache='none'/>"
        f"{source}<target dev='{disk.target}' bus='{bus}'/>{'<readonly/>' if disk.device == 'cdrom' else ''}"
        f"<alias name='ua-{disk.target}'/></disk>"
    )


@contextmanager
def loop_device(file: Path, size: int) -> Iterator[Path]:
    """A block device of `size` bytes backed by a new file."""
    run(["qemu-img", "create", "-q", "-f", "raw", str(file), str(size)], timeout=30)
    device = run(["losetup", "--find", "--show", str(file)], timeout=30).stdout.strip()
    try:
        yield Path(device)
    finally:
        run(["losetup", "--detach", device], timeout=30)


@contextmanager
def small_filesystem(folder: Path, size: int) -> Iterator[Path]:
    """An ext4 file system of `size` bytes, mounted at a new folder below `folder`."""
    image = folder / f"{uuid4().hex}.ext4"
    mountpoint = Path(mkdtemp(dir=folder, prefix="small-"))
    with image.open("wb") as file:
        file.truncate(size)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", str(image)], timeout=60)
    run(["mount", "-o", "loop", str(image), str(mountpoint)], timeout=30)
    mountpoint.chmod(0o755)
    try:
        yield mountpoint
    finally:
        run(["umount", str(mountpoint)], timeout=30)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_holds(path: Path | str, image_format: str, byte: int, *, offset: int = 0, size: int = MIB) -> bool:
    """Whether this part of an image that nobody has open is filled with `byte`, seen through its whole chain."""
    command = f"read -P {byte} {offset} {size}"
    shown = run(["qemu-io", "-r", "-f", image_format, "-c", command, str(path)], timeout=60, check=False)
    assert f"read {size}/{size} bytes" in shown.stdout, shown
    return "Pattern verification failed" not in shown.stdout


def holds(disk: DiskSpec, byte: int, *, offset: int = 0) -> bool:
    """Whether a part of the image of a domain that is off is filled with this."""
    assert disk.path
    return image_holds(disk.path, disk.format, byte, offset=offset)


def assert_on_bases(bare: Bare, entry: JournalEntry) -> None:
    """In every definition, with no job and no overlay left."""
    bases = {overlay.target: overlay.base for overlay in entry.overlays}
    assert bare.sources() == bases
    assert bare.sources(inactive=True) == bases
    assert "<mirror" not in virsh(bare.uri, "dumpxml", bare.uuid)
    assert not any(Path(overlay.path).exists() for overlay in entry.overlays)


class World:
    """A folder for images, a connection, and the bare domains of one test. A context manager."""

    def __init__(self, uri: str = URI) -> None:
        self._uri = uri
        self._stack = ExitStack()
        self._domains: list[Bare] = []

    def __enter__(self) -> Self:
        # A libvirtd of one's own does not see the folder of the host's.
        folder = image_dir("bare") if self._uri == URI else TemporaryDirectory(prefix="vmborg-bare-", dir="/var/tmp")
        self.folder = Path(self._stack.enter_context(folder))
        self.folder.chmod(0o755)
        self.hypervisor = self._stack.enter_context(Hypervisor.open(self._uri))
        return self

    def __exit__(self, *_: object) -> None:
        for bare in self._domains:
            bare.forget()
        self._stack.close()

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Hold something until the end, after which the domains are gone."""
        return self._stack.enter_context(context)

    def bare(self, *disks: DiskSpec) -> Bare:
        """A domain that is not defined yet."""
        bare = Bare(self.hypervisor, self.folder, disks)
        self._domains.append(bare)
        return bare

    def disk(
        self, target: str, image_format: str = "qcow2", *, backing: Path | None = None, folder: Path | None = None
    ) -> DiskSpec:
        """A blank disk, or a linked clone of `backing`."""
        path = (folder or self.folder) / f"{target}-{uuid4().hex[:4]}.{image_format}"
        make_disk(path, size=0 if backing else SIZE, format=image_format, formatted=False, backing=backing)
        return DiskSpec(target, path, format=image_format)

    def all_kinds(self) -> tuple[list[DiskSpec], Path]:
        """qcow2, raw, block device, linked clone and an empty CD-ROM drive; and the clone's template."""
        template = self.disk("template").path
        assert template
        device = self.enter(loop_device(self.folder / "device.img", SIZE))
        disks = [
            self.disk("vda"),
            self.disk("vdb", "raw"),
            DiskSpec("vdc", device, format="raw", kind="block"),
            self.disk("vdd", backing=template),
            DiskSpec("sda", None, format="raw", device="cdrom"),
        ]
        return disks, template
