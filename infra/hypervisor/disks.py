"""What a backup does with each disk, and why, in words for a person who never saw libvirt's documentation. Pure.

Every disk gets a verdict; none is passed over. A writable disk that cannot be covered and is not excluded makes the
run partial, so each reason for UNCOVERED says what is wrong and the way out is always the same: exclude the disk.
"""

from collections.abc import Collection, Mapping, Sequence

from infra.errors import UsageError
from infra.hypervisor.image_info import SUPPORTED_FORMATS, ImageInfo, obstacle
from infra.hypervisor.parsed import ParsedDisk, ParsedImage
from infra.manifest import ARCHIVE_DIR
from infra.model import Disk, Verdict

Judgement = tuple[Verdict, str]

_EXCLUDED: Judgement = (Verdict.EXCLUDED, "excluded by the configuration (exclude_disks)")
_EMPTY: Judgement = (Verdict.EMPTY, "a drive without medium")
_KINDS = {
    "network": "a network disk ({path}); its content is on another host, back it up there",
    "volume": "the volume {path} of a storage pool that is not active, or not on this host",
    "nvme": "an NVMe controller handed to the guest ({path}); the host cannot read it meanwhile",
    "dir": "the folder {path}, shown to the guest as a FAT disk; it has no image file",
    "vhostuser": "served by another program through the socket {path}; the host has no image of it",
    "vhostvdpa": "a hardware queue ({path}) handed to the guest; the host has no image of it",
}


def judge(disk: ParsedDisk) -> Judgement:
    """The verdict on one disk that is not excluded, from its definition alone."""
    if disk.device in {"cdrom", "floppy"}:
        if not disk.image.kind:
            return _EMPTY
        return _removable(disk.device)
    if not disk.image.kind:
        return _EMPTY
    if disk.readonly:
        return Verdict.READ_ONLY, "the guest cannot write to it"
    return _writable(disk)


def _removable(device: str) -> Judgement:
    if device == "cdrom":
        return Verdict.CDROM, "a CD-ROM medium"
    return Verdict.FLOPPY, "a floppy medium"


def _writable(disk: ParsedDisk) -> Judgement:
    if objection := _objection(disk, disk.image):
        return Verdict.UNCOVERED, objection
    return Verdict.COVERED, ""


def _objection(disk: ParsedDisk, image: ParsedImage) -> str:
    """Why a writable disk cannot be covered, the gravest reason first; "" when it can."""
    elsewhere = _KINDS.get(image.kind, f"of type {image.kind} ({{path}}), which vmborg does not know")
    objections = (
        (disk.device == "lun", "it passes SCSI commands through to the device; libvirt takes no snapshot of it"),
        (disk.shareable, "shared with other guests; a snapshot of one of them would tear it"),
        (
            bool(image.encryption),
            f"encrypted by qemu ({image.encryption}); what the guest writes to an overlay would lie there in the clear",
        ),
        (disk.transient, "transient: what the guest writes is thrown away at its shut-off"),
        (not image.local, elsewhere.format(path=image.path)),
        (image.sliced, f"it is only a part (slice) of {image.path}"),
        (
            _format(image) not in SUPPORTED_FORMATS,
            f"of format {image.format}; only qcow2 and raw images are backed up",
        ),
    )
    return next((reason for applies, reason in objections if applies), "")


def _format(image: ParsedImage) -> str:
    """libvirt takes an image without a stated format for raw (since 1.0: no probing)."""
    return image.format or "raw"


def image_format(disk: ParsedDisk) -> str:
    """The format to read a disk's image with."""
    return _format(disk.image)


def check_excluded(disks: Sequence[ParsedDisk], exclude: Collection[str], *, others: Collection[str], vm: str) -> None:
    """Raise UsageError when `exclude` names a target that the domain does not have.

    A misspelt target would exclude nothing, and a renamed one would turn into a surprise at the restore.
    """
    known = list(dict.fromkeys([*(disk.target for disk in disks), *others]))
    unknown = [target for target in exclude if target not in known]
    if unknown:
        raise UsageError(
            f"The VM {vm!r} has no disk {', '.join(unknown)}, which exclude_disks names.",
            evidence=f"its disks: {', '.join(known) or 'none'}",
            remedy="Correct exclude_disks in the configuration.",
        )


def needs_chain(disk: ParsedDisk, exclude: Collection[str]) -> bool:
    """Whether `classify` wants the disk's chain."""
    return disk.target not in exclude and judge(disk)[0] is Verdict.COVERED


def classify(
    disks: Sequence[ParsedDisk], *, exclude: Collection[str], chains: Mapping[str, Sequence[ImageInfo]]
) -> tuple[Disk, ...]:
    """Every disk with its verdict. `chains` holds what was found for each target that `needs_chain`."""
    return tuple(_classified(disk, exclude=exclude, chain=chains.get(disk.target, ())) for disk in disks)


def _classified(disk: ParsedDisk, *, exclude: Collection[str], chain: Sequence[ImageInfo]) -> Disk:
    verdict, reason = _EXCLUDED if disk.target in exclude else judge(disk)
    if verdict is Verdict.COVERED and (problem := obstacle(chain) or _contradiction(disk, chain) or _misplaced(chain)):
        verdict, reason = Verdict.UNCOVERED, problem
    return Disk(
        target=disk.target,
        device=disk.device,
        verdict=verdict,
        reason=reason,
        source=disk.image.path,
        bus=disk.bus,
        serial=disk.serial,
        chain=tuple(info.image for info in chain) if verdict is Verdict.COVERED else (),
    )


def _misplaced(chain: Sequence[ImageInfo]) -> str:
    paths = [info.image.content_path for info in chain]
    taken = [path for path in paths if path.startswith(f"/{ARCHIVE_DIR}/")]
    return f"{taken[0]} is where an archive keeps its own files; move the image out of /{ARCHIVE_DIR}" if taken else ""


def _contradiction(disk: ParsedDisk, chain: Sequence[ImageInfo]) -> str:
    """A definition may name another chain than the images do; qemu then follows the definition."""
    if not disk.backing and not disk.backing_complete:
        return ""
    named = [image.path for image in disk.backing]
    recorded = [info.image.path for info in chain[1:]]
    if named == recorded[: len(named)] and (not disk.backing_complete or len(named) == len(recorded)):
        return ""
    return (
        f"the guest uses the backing files {', '.join(named) or 'none'}, "
        f"but its image {disk.image.path} records {', '.join(recorded) or 'none'}"
    )
