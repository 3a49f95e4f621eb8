"""What is at an overlay's path, and committing it when no guest runs on it."""

import json
import re
import stat
from pathlib import Path
from typing import Any, cast

from infra.errors import CommandFailed, CommandTimedOut, CommitFailed, DomainStateChanged, ImageError, VmborgError
from infra.hypervisor import images
from infra.hypervisor.recovery_plan import Content
from infra.model import ImageKind, Overlay, Phase
from infra.process import run
from infra.qcow2.header import Qcow2Header, parse_header

GONE = (0, 0)
"""`stamp` of a file that is not there."""

_LOCKED = re.compile(r'Failed to get (shared )?"\w+" lock|Is another process using the image')
_SNAPSHOT_TAKES_S = 60
_HEAD_BYTES = 64 * 1024  # qemu writes the name of the backing file right behind the header
_NEW_IMAGE_BYTES = 1024 * 1024  # more than qemu allocates for an image without data


def content(overlay: Overlay) -> Content:
    """Look at the overlay of a disk that no guest of its own has open. Raises ImageError when that fails."""
    try:
        found = Path(overlay.path).lstat()
        if not stat.S_ISREG(found.st_mode):
            return Content.STRANGE
        header = _header(overlay.path)
    except FileNotFoundError:
        return Content.MISSING
    except OSError as error:
        raise ImageError(f"{overlay.path} cannot be looked at.", evidence=str(error)) from error
    if header is None or not header.backing:  # the name of the backing file is what qemu writes last to a new image
        return Content.UNFINISHED if found.st_blocks * 512 <= _NEW_IMAGE_BYTES else Content.STRANGE
    if header.external_data or not _lies_on(overlay, header.backing):
        return Content.STRANGE
    try:
        images.info(overlay.path, "qcow2", force_share=False)
        return Content.DATA if _holds_data(overlay.path) else Content.EMPTY
    except (ImageError, CommandFailed) as error:
        return Content.IN_USE if _LOCKED.search(error.evidence) else Content.UNREADABLE


def _header(path: str) -> Qcow2Header | None:
    """The header, None for what is no qcow2 image. Raises OSError."""
    with Path(path).open("rb") as file:
        try:
            return parse_header(file.read(_HEAD_BYTES))
        except ValueError:
            return None


def _lies_on(overlay: Overlay, backing: str) -> bool:
    below = Path(overlay.path).parent / backing.removeprefix("file:")
    return below.resolve() == Path(overlay.base).resolve()


def _holds_data(path: str) -> bool:
    """Whether anything was written to this image itself, zeros included (qemu-img map: present).

    Looked at without its backing file, whose map alone takes hundreds of megabytes where it is fragmented.
    """
    alone = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": path}}
    argv = ["qemu-img", "map", "--output=json", "-U", f"json:{json.dumps(alone)}"]
    extents = cast("list[dict[str, Any]]", json.loads(run(argv, timeout=images.INFO_TIMEOUT).stdout))
    return any(extent["present"] for extent in extents)


def stamp(path: str) -> tuple[int, int]:
    """When a file was last written to (ns) and how long it is, GONE without one. Raises ImageError."""
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return GONE
    except OSError as error:
        raise ImageError(f"{path} cannot be looked at.", evidence=str(error)) from error
    return found.st_mtime_ns, found.st_size


def equals_base(overlay: Overlay, *, seconds: float) -> bool:
    """Whether the guest would see the same on the base as on the overlay. Reads both; no guest may have them open."""
    formats = ["-f", "qcow2", "-F", overlay.base_format]
    argv = ["qemu-img", "compare", "-q", "-U", *formats, overlay.path, overlay.base]
    return run(argv, timeout=seconds, check=False).returncode == 0


def base_ahead(overlay: Overlay) -> bool:
    """Whether the base's file was written to later than the overlay; True for a device, which does not tell.

    While a commit mirrors what the guest writes, the overlay comes first and the base follows. Once the guest was
    moved to the base, the overlay stands still.
    """
    return overlay.base_kind is ImageKind.BLOCK or stamp(overlay.base) >= stamp(overlay.path)


def base_newer(overlay: Overlay, phase: Phase) -> bool:
    """Whether the base's file was written to after our own last work on it, by somebody else.

    That is after the snapshot, or, once a commit was begun, after libvirt let go of the overlay (it changes its owner
    then). False when it cannot be known: for a device, and without the overlay's time of birth.
    """
    if overlay.base_kind is ImageKind.BLOCK:
        return False
    try:
        last = Path(overlay.path).stat().st_ctime if phase is Phase.PUTTING_BACK else _born(overlay.path)
        return last > 0 and Path(overlay.base).stat().st_mtime > last + _SNAPSHOT_TAKES_S
    except OSError as error:
        raise ImageError(f"{overlay.base} cannot be looked at.", evidence=str(error)) from error


def _born(path: str) -> float:
    return float(run(["stat", "--format=%W", path], timeout=images.INFO_TIMEOUT).stdout)


def commit_offline(overlay: Overlay, *, seconds: float) -> None:
    """Commit the overlay of a disk that no guest has open into its base, and leave it empty.

    Raises DomainStateChanged when a guest was started on it meanwhile, CommitFailed otherwise; both may be repeated.
    """
    try:
        images.commit(overlay.path, base=overlay.base, base_format=overlay.base_format, timeout=seconds)
    except (ImageError, CommandTimedOut) as error:
        if _LOCKED.search(error.evidence):
            raise DomainStateChanged(f"{overlay.path} was opened meanwhile.", evidence=error.evidence) from error
        raise CommitFailed(
            f"The overlay of disk {overlay.target} could not be committed into {overlay.base}.",
            evidence=error.evidence,
            remedy=_remedy(error),
        ) from error


def _remedy(error: VmborgError) -> str:
    if "secret" in error.evidence or "encrypt" in error.evidence:
        return "The base is encrypted: start the domain, so that libvirt opens it, and run `vmborg recover`."
    return error.remedy or "Look at both images with qemu-img check, then run `vmborg recover`."
