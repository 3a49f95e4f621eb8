"""The facts that pass between vmborg's layers: plain, frozen, without behaviour that touches the world.

Sizes are bytes, times are UTC, durations say their unit in the name.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class Consistency(StrEnum):
    """What a restored archive is like to its guest."""

    AGENT = "agent"  # file systems were frozen by the guest agent, confirmed
    CRASH = "crash"  # as after a power cut, all disks of one instant
    OFFLINE = "offline"  # the domain was shut off


class Quiesce(StrEnum):
    """Policy: whether a backup needs the guest's file systems frozen."""

    REQUIRE = "require"
    TRY = "try"
    NEVER = "never"


class ReadMode(StrEnum):
    """Policy: how much of its disks a backup reads."""

    CHANGED = "changed"  # what the guest wrote to since the last backup, where that is known
    WHOLE = "whole"


class Layout(StrEnum):
    """How an archive holds a disk."""

    IMAGE = "image"  # the image files of its chain, as they are
    SEGMENTS = "segments"  # what the guest sees, in files of a few MiB


class DomainState(StrEnum):
    """libvirt's domain states, as far as a backup tells them apart."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUT_OFF = "shut off"
    OTHER = "other"  # crashed, in shutdown, suspended by the guest


class ImageKind(StrEnum):
    """Where an image's bytes are."""

    FILE = "file"
    BLOCK = "block"


class Verdict(StrEnum):
    """What a backup does with a disk."""

    COVERED = "covered"
    EXCLUDED = "excluded"  # by the configuration
    READ_ONLY = "read-only"
    CDROM = "cdrom"
    FLOPPY = "floppy"
    EMPTY = "empty"  # a drive without medium
    UNCOVERED = "uncovered"  # writable, wanted, and not possible: the run is partial


@dataclass(frozen=True, slots=True)
class Image:
    """One image file or device of a disk's chain."""

    path: str
    format: str  # qemu's name: qcow2, raw
    kind: ImageKind
    virtual_size: int  # bytes the guest sees
    size: int  # bytes of the file (its length) or of the device
    link_target: str = ""  # where `path` leads, if it is a symbolic link to a file or has `//` or `/./` in it; else ""

    @property
    def content_path(self) -> str:
        """What borg must be given: it stores a symbolic link as a link, and any path in its plainest form."""
        return self.link_target or self.path


@dataclass(frozen=True, slots=True)
class Disk:
    """A domain's disk and what a backup does with it."""

    target: str  # vda
    device: str  # disk, lun, cdrom, floppy
    verdict: Verdict
    reason: str
    source: str  # path or URL of the active image; "" when there is none
    bus: str = ""
    serial: str = ""
    chain: tuple[Image, ...] = ()  # active image first, then its backing files; empty unless covered

    @property
    def base(self) -> Image:
        """The image that the guest writes to outside a backup. Raises IndexError for a disk without chain."""
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class BootFile:
    """A file outside the disks that the domain needs: nvram, kernel, initrd, dtb."""

    role: str
    path: str


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """One domain as inspected, at one moment."""

    uuid: str
    name: str
    state: DomainState
    persistent: bool
    live_xml: str  # "" when shut off
    inactive_xml: str  # of a transient domain: its migratable live definition
    disks: tuple[Disk, ...]
    boot_files: tuple[BootFile, ...] = ()
    tpm_dir: str = ""  # swtpm's state directory; "" without an emulated TPM
    has_agent: bool = False  # the agent's channel is connected
    block_jobs: tuple[str, ...] = ()  # disk targets with a block job of anybody's
    job: str = ""  # a domain job in progress: migration, save, backup; "" for none
    snapshots: tuple[str, ...] = ()  # names of libvirt snapshots with metadata
    checkpoints: tuple[str, ...] = ()
    managed_save: bool = False  # shut off with its memory saved: its disks are as after a power cut
    # Storage that is no disk of the running guest to libvirt, so that a snapshot must not name it: attached
    # at the next start only, or handed to qemu past libvirt's <disk>.
    outside_disks: tuple[Disk, ...] = ()

    @property
    def running(self) -> bool:
        """Whether a qemu process holds the disks (running or paused)."""
        return self.state is not DomainState.SHUT_OFF

    @property
    def covered(self) -> tuple[Disk, ...]:
        """The disks that go into an archive."""
        return tuple(disk for disk in self.disks if disk.verdict is Verdict.COVERED)

    @property
    def uncovered(self) -> tuple[Disk, ...]:
        """The disks that make a run partial."""
        every = self.disks + self.outside_disks
        return tuple(disk for disk in every if disk.verdict is Verdict.UNCOVERED)


@dataclass(frozen=True, slots=True)
class Overlay:
    """One disk's overlay and the base it is to be committed into."""

    target: str
    base: str  # path of the image the guest writes to outside a backup
    base_kind: ImageKind
    base_format: str
    path: str  # the overlay's own path


class Phase(StrEnum):
    """How far a run had come when the journal was last written."""

    PREPARED = "prepared"  # nothing done to the guest yet; freeze and snapshot may follow at any moment
    SNAPSHOTTED = "snapshotted"  # the guest writes to the overlays
    PUTTING_BACK = "putting-back"  # commits were begun


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What a run is about to do to a domain: enough to undo it knowing nothing else."""

    run_id: str
    uuid: str
    name: str
    hypervisor: str
    started: datetime
    phase: Phase
    overlays: tuple[Overlay, ...]
    freeze: bool = False  # a freeze may have been asked for and its thaw is not confirmed yet
    was_running: bool = True  # False when the domain was paused by somebody else before
    repository: str = ""
    replicas: tuple[str, ...] = ()  # further repositories that it is written to
    archive: str = ""  # the archive in the making, under its unfinished name
    checkpoint: str = ""  # the checkpoint that the run may have made
    life: str = ""  # of the qemu that ran when the run began; see infra.hypervisor.qemu_process
    pivoting: tuple[tuple[str, str], ...] = ()  # disk targets whose pivot was asked for, and of which qemu
    paused: bool = False  # we may have paused the guest, so that a commit gets ready
    # Disk targets whose overlay held nothing that the base lacks when its file was last written to (ns) and so long.
    settled: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FreezeReport:
    """What the freeze window was like."""

    consistency: Consistency
    reason: str  # why it is not `agent`, or which file systems were frozen
    frozen_ms: int = 0
    filesystems: int = 0
    thaw_confirmed: bool = True


@dataclass(frozen=True, slots=True)
class PutBackReport:
    """What putting a domain back did."""

    uuid: str
    name: str
    actions: tuple[str, ...] = field(default=())  # sentences in the past tense, in order

    @property
    def changed(self) -> bool:
        """Whether anything had to be done."""
        return bool(self.actions)


@dataclass(frozen=True, slots=True)
class StateDir:
    """Where vmborg keeps its own files (`state_dir` of the configuration)."""

    root: Path

    @property
    def journal(self) -> Path:
        """Open runs, one file a domain."""
        return self.root / "journal"

    @property
    def locks(self) -> Path:
        """One lock file a domain."""
        return self.root / "locks"

    @property
    def runs(self) -> Path:
        """Staging of an archive's metadata directory, one folder a domain."""
        return self.root / "runs"

    @property
    def dumps(self) -> Path:
        """Trees of dumps and pinned host keys, one folder a dump host."""
        return self.root / "dumps"

    @property
    def borg(self) -> Path:
        """borg's cache, security and key directories (BORG_BASE_DIR)."""
        return self.root / "borg"

    @property
    def keys(self) -> Path:
        """Exported repository keys."""
        return self.root / "keys"

    @property
    def segments(self) -> Path:
        """What is remembered of each VM's disks, so that only what changed is read."""
        return self.root / "segments"

    @property
    def views(self) -> Path:
        """Open views of archives: what they made on this host, one file each."""
        return self.root / "views"

    @property
    def without_kvm(self) -> Path:
        """The file that is there once the appliance of libguestfs did not start on /dev/kvm."""
        return self.views / "appliance-without-kvm"

    @property
    def upkeep(self) -> Path:
        """What prunes, checks and cloud copies remember."""
        return self.root / "upkeep"

    @property
    def drills(self) -> Path:
        """Drills under way, what the last ones found, their pictures."""
        return self.root / "drills"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME of runs without a server."""
        return self.root / "prefect"
