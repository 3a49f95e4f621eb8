"""What vmborg reads in a domain definition. Names follow libvirt's formatdomain.html."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParsedImage:
    """One image, as a definition names it."""

    kind: str  # libvirt's: file, block, network, volume, dir, nvme, vhostuser, ...; "" without a source
    path: str  # of file, block, dir and a known volume; an address of everything else; "" without a source
    format: str = ""  # qcow2, raw, ...; "" when the definition does not say
    pool: str = ""  # of kind volume
    volume: str = ""  # of kind volume
    encryption: str = ""  # luks, qcow, ...: what qemu decrypts while the guest runs
    sliced: bool = False  # the guest sees only a part of it

    @property
    def local(self) -> bool:
        """Whether `path` is a file or device of this host."""
        return self.kind in {"file", "block", "volume"} and self.path.startswith("/")


@dataclass(frozen=True, slots=True)
class ParsedMirror:
    """A block job's target. `ready` means that a pivot may succeed (`<mirror ready='yes'>`)."""

    image: ParsedImage
    job: str  # copy, active-commit
    ready: bool


@dataclass(frozen=True, slots=True)
class ParsedDisk:
    """One disk of a definition."""

    target: str
    device: str  # disk, lun, cdrom, floppy
    image: ParsedImage
    bus: str = ""
    serial: str = ""
    readonly: bool = False
    shareable: bool = False
    transient: bool = False
    mirror: ParsedMirror | None = None
    backing: tuple[ParsedImage, ...] = ()  # its backing files as the definition lists them
    backing_complete: bool = False  # the list ends with <backingStore/>: it is the whole chain


@dataclass(frozen=True, slots=True)
class ParsedTpm:
    """An emulated TPM. `source` is set only where the definition moves its state elsewhere."""

    version: str  # 1.2, 2.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class ParsedDomain:
    """What vmborg reads in a definition."""

    uuid: str
    name: str
    live: bool  # of a running domain
    disks: tuple[ParsedDisk, ...]
    loader: str = ""
    nvram: ParsedImage | None = None
    kernel: str = ""
    initrd: str = ""
    dtb: str = ""
    tpm: ParsedTpm | None = None
    has_agent_channel: bool = False
    agent_connected: bool = False

    def disk(self, target: str) -> ParsedDisk | None:
        """The disk of a target, None without one."""
        return next((disk for disk in self.disks if disk.target == target), None)
