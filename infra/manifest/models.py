"""The manifest's models, version 1. Sizes are bytes, paths in the archive are relative and without `..`."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from infra.model import Consistency, ImageKind, Verdict

ARCHIVE_DIR = "vmborg"
"""The directory of an archive that holds the manifest and everything that is no disk."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _relative(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ValueError("must be a relative path without empty parts, `.` and `..`")
    return _printable(path)


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not hold control characters")
    return text


ArchivePath = Annotated[str, AfterValidator(_relative)]
Text = Annotated[str, AfterValidator(_printable)]
Size = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ManifestImage(_Part):
    """One image of a disk's chain."""

    archive_path: ArchivePath
    source: Text  # where it was on the hypervisor
    format: Text
    kind: ImageKind
    size: Size  # of the file or device
    virtual_size: Size
    allocated: Size  # bytes that are not holes


class ManifestDisk(_Part):
    """A disk of the domain and what became of it. The chain's first image is the one the guest writes to."""

    target: Text
    verdict: Verdict
    reason: Text = ""
    source: Text = ""
    serial: Text = ""
    format: Text = ""
    virtual_size: Size = 0
    layout: Literal["image"] = "image"
    archive_path: ArchivePath | None = None
    chain: tuple[ManifestImage, ...] = ()


class ManifestBootFile(_Part):
    """A file that the domain needs to boot: nvram, kernel, initrd, dtb."""

    role: Text
    archive_path: ArchivePath
    source: Text
    size: Size
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestTpm(_Part):
    """The state of an emulated TPM."""

    archive_dir: ArchivePath
    files: tuple[ArchivePath, ...]


class Manifest(_Part):
    """What an archive holds and how it was made."""

    version: Literal[1] = 1
    vm: Text
    uuid: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    hypervisor: Text  # the configured name
    host: Text  # the host name
    created: datetime
    vmborg: Text
    consistency: Consistency
    consistency_reason: Text
    frozen_ms: Size
    filesystems_frozen: Size
    domain_xml: ArchivePath
    domain_live_xml: ArchivePath | None = None
    autostart: bool = False
    disks: tuple[ManifestDisk, ...]
    boot_files: tuple[ManifestBootFile, ...] = ()
    tpm: ManifestTpm | None = None
