"""The metadata directory of an archive: definitions, firmware state, boot files and the manifest, put together on disk.

borg is given `<state>/runs/<uuid>/./vmborg`, so the archive holds it as `vmborg/` (borg strips what stands before
`/./`, since 1.4.0). The manifest is written last, after the snapshot: borg never keeps the file with the newest
timestamp of an archive in its files cache, and so it is the manifest, not a disk, that is read again next time.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from infra.borg.client import BLOCK
from infra.errors import DiskMissing, ManifestError
from infra.hypervisor import images
from infra.manifest import (
    ARCHIVE_DIR,
    DOMAIN_LIVE_XML,
    DOMAIN_XML,
    Manifest,
    ManifestBootFile,
    ManifestDisk,
    ManifestImage,
    ManifestTpm,
    disk_folder,
    render,
)
from infra.model import Disk, DomainFacts, FreezeReport, Image, Layout
from infra.segments.decide import DiskReading
from tasks.job import BackupJob

_BOOT_FILE_NAMES = {"nvram": "nvram.fd", "kernel": "kernel", "initrd": "initrd", "dtb": "dtb"}


@dataclass(frozen=True, slots=True)
class FirmwareState:
    """What was copied inside the freeze window because it changes while the guest runs."""

    boot_files: tuple[ManifestBootFile, ...] = ()
    tpm: ManifestTpm | None = None


def prepare(job: BackupJob) -> Path:
    """An empty metadata directory (0700), its predecessor gone. Returns its path."""
    directory = job.staging / ARCHIVE_DIR
    shutil.rmtree(job.staging, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    return directory


def copy_firmware_state(directory: Path, facts: DomainFacts) -> FirmwareState:
    """Copy NVRAM and TPM state; call it inside the freeze window. Raises DiskMissing."""
    files = tuple(_copy_boot_file(directory, file.role, file.path) for file in facts.boot_files if file.role == "nvram")
    return FirmwareState(files, _copy_tpm(directory, facts.tpm_dir) if facts.tpm_dir else None)


def copy_boot_files(directory: Path, facts: DomainFacts) -> tuple[ManifestBootFile, ...]:
    """Copy what a direct kernel boot needs; it does not change while the guest runs. Raises DiskMissing."""
    return tuple(_copy_boot_file(directory, file.role, file.path) for file in facts.boot_files if file.role != "nvram")


def _copy_boot_file(directory: Path, role: str, source: str) -> ManifestBootFile:
    target = directory / _BOOT_FILE_NAMES.get(role, role)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise DiskMissing(
            f"The domain's {role} file cannot be read.",
            evidence=f"{source}: {error.strerror}",
            remedy="Put the file back where the definition names it, or correct the definition.",
        ) from error
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ManifestBootFile(
        role=role,
        archive_path=f"{ARCHIVE_DIR}/{target.name}",
        source=source,
        size=target.stat().st_size,
        sha256=digest,
    )


def _copy_tpm(directory: Path, source: str) -> ManifestTpm:
    target = directory / "tpm"
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.lock", ".lock"))
    except (OSError, shutil.Error) as error:
        raise DiskMissing(
            "The TPM's state cannot be read.",
            evidence=f"{source}: {error}",
            remedy="Look at the permissions of swtpm's directory; vmborg needs root.",
        ) from error
    files = tuple(sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()))
    return ManifestTpm(archive_dir=f"{ARCHIVE_DIR}/tpm", files=files)


def write_manifest(
    job: BackupJob,
    directory: Path,
    facts: DomainFacts,
    *,
    freeze: FreezeReport,
    boot_files: tuple[ManifestBootFile, ...],
    tpm: ManifestTpm | None,
    autostart: bool,
    readings: Mapping[str, DiskReading],
) -> Manifest:
    """Write both definitions, then the manifest as the newest file. Raises ManifestError.

    `readings` are the disks that are read as segments, by their targets.
    """
    (directory / "domain.xml").write_text(facts.inactive_xml, encoding="utf-8")
    if facts.live_xml:
        (directory / "domain-live.xml").write_text(facts.live_xml, encoding="utf-8")
    try:
        manifest = _manifest(
            job, facts, freeze=freeze, boot_files=boot_files, tpm=tpm, autostart=autostart, readings=readings
        )
    except ValidationError as error:
        raise ManifestError(
            f"What the VM {facts.name!r} consists of cannot be written into a manifest.",
            evidence="\n".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()),
            remedy="Look at the names and paths of its files: one of them is not what a restore could trust.",
        ) from error
    path = directory / "manifest.json"
    path.write_text(render(manifest), encoding="utf-8")
    return manifest


def _manifest(
    job: BackupJob,
    facts: DomainFacts,
    *,
    freeze: FreezeReport,
    boot_files: tuple[ManifestBootFile, ...],
    tpm: ManifestTpm | None,
    autostart: bool,
    readings: Mapping[str, DiskReading],
) -> Manifest:
    return Manifest(
        vm=facts.name,
        uuid=facts.uuid,
        hypervisor=job.config.hypervisor.name,
        host=job.hypervisor.hostname(),
        created=job.started,
        vmborg=version("vmborg"),
        consistency=freeze.consistency,
        consistency_reason=freeze.reason,
        frozen_ms=freeze.frozen_ms,
        filesystems_frozen=freeze.filesystems,
        domain_xml=DOMAIN_XML,
        domain_live_xml=DOMAIN_LIVE_XML if facts.live_xml else None,
        autostart=autostart,
        disks=tuple(_describe_disk(disk, readings.get(disk.target)) for disk in facts.disks),
        boot_files=boot_files,
        tpm=tpm,
    )


def _describe_disk(disk: Disk, reading: DiskReading | None) -> ManifestDisk:
    chain = tuple(_describe_image(image) for image in disk.chain)
    if reading is not None:
        seen = {"size": reading.size, "virtual_size": reading.size, "extracted": 0}
        chain = (chain[0].model_copy(update={"archive_path": disk_folder(disk.target), **seen}),)
    return ManifestDisk(
        target=disk.target,
        verdict=disk.verdict,
        reason=disk.reason,
        source=disk.source,
        serial=disk.serial,
        format=disk.base.format if disk.chain else "",
        virtual_size=chain[0].virtual_size if disk.chain else 0,
        layout=Layout.SEGMENTS if reading else Layout.IMAGE,
        segment=reading.segment if reading else 0,
        archive_path=chain[0].archive_path if chain else None,
        chain=chain,
    )


def _describe_image(image: Image) -> ManifestImage:
    return ManifestImage(
        archive_path=image.content_path.lstrip("/"),
        source=image.path,
        format=image.format,
        kind=image.kind,
        size=images.size_of(image.path),  # not as inspected: the guest may have made it grow until the snapshot
        virtual_size=image.virtual_size,
        allocated=images.allocated(image.path),
        extracted=images.data_in_blocks(image.path, BLOCK),
    )
