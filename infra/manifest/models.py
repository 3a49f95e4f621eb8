"""The manifest's models, version 1. Sizes are bytes, paths in the archive are relative and without `..`.

What contradicts itself is no manifest: a disk that is covered has its images, no two files have one place, and what
is no disk lies in the metadata directory.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from infra.manifest.segments import MOST_SEGMENTS, SEGMENTS_DIR, disk_folder
from infra.model import Consistency, ImageKind, Layout, Verdict

ARCHIVE_DIR = "vmborg"
"""The directory of an archive that holds the manifest and everything that is no disk."""

MANIFEST_PATH = f"{ARCHIVE_DIR}/manifest.json"

DOMAIN_XML, DOMAIN_LIVE_XML = f"{ARCHIVE_DIR}/domain.xml", f"{ARCHIVE_DIR}/domain-live.xml"
"""Where a backup puts the definitions; a reader goes by what the manifest says."""

# C1 is in it: \x9b begins an escape sequence as ESC [ does.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_PATH = 4096  # PATH_MAX, limits.h


def _relative(path: str) -> str:
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise ValueError("must be a relative path without empty parts, `.` and `..`")
    if len(path) > _LONGEST_PATH:
        raise ValueError("must not be longer than a path can be")
    return _printable(path)


def _metadata(path: str) -> str:
    if not path.startswith(f"{ARCHIVE_DIR}/") or path == MANIFEST_PATH:
        raise ValueError(f"must be a path of its own below {ARCHIVE_DIR}/")
    return _relative(path)


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not hold control characters")
    return text


def _prose(text: str) -> str:
    _printable(text.replace("\n", "").replace("\t", ""))
    return text


ArchivePath = Annotated[str, AfterValidator(_relative)]
MetadataPath = Annotated[str, AfterValidator(_metadata)]
Text = Annotated[str, AfterValidator(_printable)]
Prose = Annotated[str, AfterValidator(_prose)]
"""Text for people; an error message in it may have several lines."""
Size = Annotated[int, Field(ge=0, lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ManifestImage(_Part):
    """One image of a disk's chain."""

    archive_path: ArchivePath
    source: Text  # where it was on the hypervisor
    format: Text
    kind: ImageKind
    size: Size  # of the file or device
    virtual_size: Size
    allocated: Size  # bytes that are not holes
    extracted: Size = 0  # bytes that borg extract --sparse makes of it: holes as whole blocks; 0: not known


class ManifestDisk(_Part):
    """A disk of the domain and what became of it. The chain's first image is the one the guest writes to."""

    target: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]*$")]
    verdict: Verdict
    reason: Prose = ""
    source: Text = ""
    serial: Text = ""
    format: Text = ""
    virtual_size: Size = 0
    layout: Layout = Layout.IMAGE
    segment: Annotated[int, Field(ge=0, le=64 * 1024**2)] = 0  # bytes of each but the last; with layout `segments` only
    archive_path: ArchivePath | None = None
    chain: tuple[ManifestImage, ...] = ()  # of layout `segments`: the image that they were read from

    @model_validator(mode="after")
    def _has_images_if_covered(self) -> Self:
        if (self.verdict is Verdict.COVERED) != bool(self.chain):
            raise ValueError("images belong to a covered disk, and to no other")
        if self.archive_path != (self.chain[0].archive_path if self.chain else None):
            raise ValueError("archive_path must be that of the chain's first image")
        return self

    @model_validator(mode="after")
    def _has_segments_if_it_says_so(self) -> Self:
        if self.layout is Layout.IMAGE:
            if self.segment:
                raise ValueError("an image has no segments")
            return self
        if len(self.chain) != 1 or self.archive_path != disk_folder(self.target):
            raise ValueError(f"a disk in segments is one image, in {disk_folder(self.target)}")
        if (self.chain[0].format, self.chain[0].kind) != ("qcow2", ImageKind.FILE):
            raise ValueError("a disk in segments was a qcow2 image")
        if not self.segment or self.virtual_size > self.segment * MOST_SEGMENTS:
            raise ValueError("its segments are too small")
        if {self.chain[0].size, self.chain[0].virtual_size} != {self.virtual_size}:
            raise ValueError("its segments hold what the guest sees")
        return self


class ManifestBootFile(_Part):
    """A file that the domain needs to boot: nvram, kernel, initrd, dtb."""

    role: Text
    archive_path: MetadataPath
    source: Text
    size: Size
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestTpm(_Part):
    """The state of an emulated TPM."""

    archive_dir: MetadataPath
    files: tuple[ArchivePath, ...]


class Manifest(_Part):
    """What an archive holds and how it was made."""

    version: Literal[1] = 1
    vm: Annotated[Text, Field(min_length=1)]
    uuid: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    hypervisor: Text  # the configured name
    host: Text  # the host name
    created: AwareDatetime
    vmborg: Text
    consistency: Consistency
    consistency_reason: Prose
    frozen_ms: Size
    filesystems_frozen: Size
    domain_xml: MetadataPath
    domain_live_xml: MetadataPath | None = None
    autostart: bool = False
    disks: tuple[ManifestDisk, ...]
    boot_files: tuple[ManifestBootFile, ...] = ()
    tpm: ManifestTpm | None = None

    @model_validator(mode="after")
    def _holds_each_thing_once(self) -> Self:
        targets = [disk.target for disk in self.disks]
        if len(set(targets)) != len(targets):
            raise ValueError("a disk target is there twice")
        # Two linked clones share their template: the same image may be named by several disks.
        images: dict[str, ManifestImage] = {}
        for image in (image for disk in self.disks for image in disk.chain):
            if images.setdefault(image.archive_path, image) != image:
                raise ValueError("two different images have one place in the archive")
        paths = [*images, *self._metadata_paths()]
        if len(set(paths)) != len(paths):
            raise ValueError("two files have one place in the archive")
        if any(path.startswith(f"{ARCHIVE_DIR}/") for path in images):
            raise ValueError(f"{ARCHIVE_DIR}/ is no place for images")
        whole = [image.archive_path for disk in self.disks if disk.layout is Layout.IMAGE for image in disk.chain]
        if len(whole) < len(images) and any(path.startswith(f"{SEGMENTS_DIR}/") for path in whole):
            raise ValueError(f"{SEGMENTS_DIR}/ is no place for images beside segments")
        return self

    def _metadata_paths(self) -> Iterator[str]:
        yield self.domain_xml
        if self.domain_live_xml is not None:
            yield self.domain_live_xml
        yield from (file.archive_path for file in self.boot_files)
        if self.tpm is not None:
            yield from (f"{self.tpm.archive_dir}/{name}" for name in self.tpm.files)
