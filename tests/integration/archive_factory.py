"""Archives of domains that are shut off, made with the borg client and the manifest alone, whole or spoiled."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.borg.client import Repository
from infra.borg.names import archive_name
from infra.hypervisor import images
from infra.hypervisor.connection import Domain
from infra.hypervisor.inspect import inspect
from infra.manifest import (
    ARCHIVE_DIR,
    SEGMENTS_DIR,
    Manifest,
    ManifestBootFile,
    ManifestDisk,
    ManifestImage,
    ManifestTpm,
    disk_folder,
    render,
    segment_sizes,
)
from infra.model import Consistency, Disk, DomainFacts, Image, ImageKind, Layout
from infra.process import run

SEGMENT = 4 * 1024**2
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class ArchiveFactory:
    """Makes archives in one repository, a day apart. What `edit_…` return goes into the archive instead."""

    repository: Repository
    work: Path
    made: int = 0
    names: list[str] = field(default_factory=list[str])

    def make(
        self,
        domain: Domain,
        *,
        exclude: Collection[str] = (),
        finished: bool = True,
        segments: bool = False,
        edit_xml: Callable[[str], str] = str,
        edit_manifest: Callable[[Manifest], Manifest] = lambda manifest: manifest,
        edit_directory: Callable[[Path], object] = lambda _: None,
    ) -> str:
        """Archive the domain as it is now; return the archive's name."""
        when = _FIRST + timedelta(days=self.made)
        self.made += 1
        facts = inspect(domain, exclude_disks=exclude)
        name = archive_name(facts.uuid, facts.name, when)
        with tempfile.TemporaryDirectory(dir=self.work) as staging:
            directory = Path(staging, ARCHIVE_DIR)
            directory.mkdir()
            manifest = _describe(facts, directory, when=when, autostart=domain.autostart())
            manifest = _in_segments(manifest, Path(staging)) if segments else manifest
            (directory / "domain.xml").write_text(edit_xml(facts.inactive_xml), encoding="utf-8")
            (directory / "manifest.json").write_text(render(edit_manifest(manifest)), encoding="utf-8")
            edit_directory(directory)
            chains = [image for disk in facts.covered for image in disk.chain]
            paths = [f"{staging}/./{SEGMENTS_DIR}"] if segments else [image.content_path for image in chains]
            name = name if finished else f"{name}.unfinished"
            self.repository.create(
                name,
                [*dict.fromkeys(paths), f"{staging}/./{ARCHIVE_DIR}"],
                comment="",
                read_special=any(image.kind is ImageKind.BLOCK for image in chains),
                files_cache_suffix=facts.uuid,
            )
        self.names.append(name)
        return name


def _describe(facts: DomainFacts, directory: Path, *, when: datetime, autostart: bool) -> Manifest:
    return Manifest(
        vm=facts.name,
        uuid=facts.uuid,
        hypervisor="here",
        host="here",
        created=when,
        vmborg="0",
        consistency=Consistency.OFFLINE,
        consistency_reason="it was shut off",
        frozen_ms=0,
        filesystems_frozen=0,
        domain_xml=f"{ARCHIVE_DIR}/domain.xml",
        autostart=autostart,
        disks=tuple(map(_disk, facts.disks)),
        boot_files=tuple(_boot_file(directory, file.role, file.path) for file in facts.boot_files),
        tpm=_tpm(directory, facts.tpm_dir) if facts.tpm_dir else None,
    )


def _disk(disk: Disk) -> ManifestDisk:
    chain = tuple(map(_image, disk.chain))
    return ManifestDisk(
        target=disk.target,
        verdict=disk.verdict,
        reason=disk.reason,
        source=disk.source,
        format=chain[0].format if chain else "",
        virtual_size=chain[0].virtual_size if chain else 0,
        archive_path=chain[0].archive_path if chain else None,
        chain=chain,
    )


def _in_segments(manifest: Manifest, staging: Path) -> Manifest:
    """The same archive with every disk as segments of 4 MiB, which are written below `staging`."""
    disks: list[ManifestDisk] = []
    for disk in manifest.disks:
        folder = staging / disk_folder(disk.target)
        folder.mkdir(parents=True)
        raw = staging / "raw"
        run(["qemu-img", "convert", "-O", "raw", disk.chain[0].source, str(raw)], timeout=300)
        with raw.open("rb") as content:
            for name, size in segment_sizes(disk.virtual_size, SEGMENT).items():
                (folder / name).write_bytes(content.read(size))
        raw.unlink()
        path = disk_folder(disk.target)
        image = disk.chain[0].model_copy(update={"archive_path": path, "size": disk.virtual_size})
        change = {"layout": Layout.SEGMENTS, "segment": SEGMENT, "archive_path": path, "chain": (image,)}
        disks.append(disk.model_copy(update=change))
    return manifest.model_copy(update={"disks": tuple(disks)})


def _image(image: Image) -> ManifestImage:
    return ManifestImage(
        archive_path=image.content_path.lstrip("/"),
        source=image.path,
        format=image.format,
        kind=image.kind,
        size=image.size,
        virtual_size=image.virtual_size,
        allocated=images.allocated(image.path),
    )


def _boot_file(directory: Path, role: str, source: str) -> ManifestBootFile:
    target = directory / ("nvram.fd" if role == "nvram" else role)
    shutil.copyfile(source, target)
    return ManifestBootFile(
        role=role,
        archive_path=f"{ARCHIVE_DIR}/{target.name}",
        source=source,
        size=target.stat().st_size,
        sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
    )


def _tpm(directory: Path, source: str) -> ManifestTpm:
    target = directory / "tpm"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".lock"))
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    return ManifestTpm(archive_dir=f"{ARCHIVE_DIR}/tpm", files=tuple(files))
