"""What qemu-img says of one image, and whether a chain can be stored as files. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from infra.errors import ImageError
from infra.model import Image

SUPPORTED_FORMATS = ("qcow2", "raw")


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image and what it says of the next one in its chain."""

    image: Image
    backing: str = ""  # full path of its backing file, or what stands there instead; "" without one
    backing_format: str = ""  # as recorded in the image; "" when it is not
    data_file: str = ""  # a qcow2 whose clusters are in another file
    encrypted: bool = False
    corrupt: bool = False  # qemu marked it so
    snapshots: tuple[str, ...] = ()  # names of internal snapshots


@dataclass(frozen=True, slots=True)
class QemuImgInfo:
    """`qemu-img info --output=json` of one image."""

    virtual_size: int
    backing: str
    backing_format: str
    data_file: str
    encrypted: bool
    corrupt: bool
    snapshots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`qemu-img check --output=json`."""

    corruptions: int
    leaks: int  # clusters; wasted space, no damage
    errors: int  # places that could not be checked

    @property
    def clean(self) -> bool:
        """Whether every byte is where the image says. Leaked clusters do no harm."""
        return self.corruptions == 0 and self.errors == 0


def parse_info(text: str) -> QemuImgInfo:
    """Read qemu-img's JSON (QAPI type ImageInfo). Raises ImageError."""
    info = _json(text)
    special = cast("dict[str, Any]", info.get("format-specific", {}).get("data", {}))
    return QemuImgInfo(
        virtual_size=int(info.get("virtual-size", 0)),
        backing=info.get("full-backing-filename") or info.get("backing-filename") or "",
        backing_format=info.get("backing-filename-format", ""),
        data_file=special.get("data-file", ""),
        encrypted=bool(info.get("encrypted", False)),
        corrupt=bool(special.get("corrupt", False)),
        snapshots=tuple(str(snapshot.get("name", "")) for snapshot in info.get("snapshots", [])),
    )


def parse_check(text: str) -> CheckResult:
    """Read qemu-img's JSON (QAPI type ImageCheck). Raises ImageError."""
    check = _json(text)
    return CheckResult(
        corruptions=int(check.get("corruptions", 0)),
        leaks=int(check.get("leaks", 0)),
        errors=int(check.get("check-errors", 0)),
    )


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ImageError("qemu-img printed no JSON.", evidence=text[-500:]) from error
    if not isinstance(value, dict):
        raise ImageError("qemu-img printed unexpected JSON.", evidence=text[-500:])
    return cast("dict[str, Any]", value)


def is_local_path(name: str) -> bool:
    """Whether a backing file's full name is a path, and not json:{...} or one of qemu's protocols."""
    return name.startswith("/")


def obstacle(chain: Sequence[ImageInfo]) -> str:
    """Why this chain cannot be stored as it is; "" when it can.

    It is complete up to the first image whose backing file is none of this host's, or has no recorded format.
    """
    for info in chain:
        path = info.image.path
        if info.image.format not in SUPPORTED_FORMATS:
            return f"{path} is of format {info.image.format}; only qcow2 and raw images are backed up"
        if info.data_file:
            return f"{path} keeps its content in the external data file {info.data_file}"
        if info.corrupt:
            return f"{path} is marked corrupt by qemu; qemu-img check tells more"
    return _dangling(chain[-1]) if chain else "it has no image"


def _dangling(last: ImageInfo) -> str:
    """What is wrong with what the last image of a walk says comes next; "" when nothing does."""
    if not last.backing:
        return ""
    if not is_local_path(last.backing):
        return f"the backing file {last.backing} of {last.image.path} is no file or device of this host"
    return (
        f"{last.image.path} does not record the format of its backing file {last.backing}; "
        f"record it with qemu-img rebase -u -b {last.backing} -F FORMAT {last.image.path}"
    )
