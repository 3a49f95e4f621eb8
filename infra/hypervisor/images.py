"""Disk images: qemu-img, sizes and holes.

An image's format always comes from the domain's definition or from the image above it, never from a look at
its first bytes: a guest can write a qcow2 header into its raw disk and so name any file of the host.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.errors import CommandFailed, DiskMissing, ImageError
from infra.hypervisor.image_info import CheckResult, ImageInfo, is_local_path, obstacle, parse_check, parse_info
from infra.model import Image, ImageKind
from infra.process import describe, run

INFO_TIMEOUT = 60.0
"""Seconds for a command that only reads headers; storage that needs longer hangs."""

_SECTOR = 512
_SECTORS_WRITTEN = 6  # the kernel's Documentation/block/stat.rst
_CHECK_LEAKS = 3
_CHECK_CORRUPT = 2


def kind_of(path: str) -> ImageKind:
    """Whether a path is a file or a block device. Raises DiskMissing; ImageError for anything else."""
    mode = _stat(path).st_mode
    if stat.S_ISREG(mode):
        return ImageKind.FILE
    if stat.S_ISBLK(mode):
        return ImageKind.BLOCK
    raise ImageError(f"{path} is neither a file nor a block device.", remedy="Correct the disk's definition.")


def _stat(path: str) -> os.stat_result:
    try:
        return Path(path).stat()
    except OSError as error:
        raise DiskMissing(
            f"The image {path} cannot be read.",
            evidence=f"{path}: {error.strerror}",
            remedy="Bring it back (is its file system mounted, its volume active?) or correct the definition.",
        ) from error


def size_of(path: str) -> int:
    """Bytes of a file or of a block device. Raises DiskMissing."""
    found = _stat(path)
    if not stat.S_ISBLK(found.st_mode):
        return found.st_size
    try:
        with Path(path).open("rb") as device:
            return device.seek(0, os.SEEK_END)
    except OSError as error:
        raise DiskMissing(
            f"The device {path} cannot be read.",
            evidence=str(error),
            remedy="Look at dmesg, and at its volume.",
        ) from error


def written(path: str) -> tuple[int, int]:
    """What changes when an image is written to: of a file, its length and time (ns); of a device, its sectors written.

    Raises DiskMissing.
    """
    found = _stat(path)
    if not stat.S_ISBLK(found.st_mode):
        return found.st_size, found.st_mtime_ns
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    counters = Path(f"/sys/dev/block/{number}/stat").read_text("ascii").split()
    return size_of(path), int(counters[_SECTORS_WRITTEN])


def allocated(path: str) -> int:
    """Bytes that a file takes of its file system; of a device, its size. Raises DiskMissing."""
    found = _stat(path)
    return size_of(path) if stat.S_ISBLK(found.st_mode) else found.st_blocks * 512


def data_in_blocks(path: str, block: int) -> int:
    """Bytes of the blocks of `block` bytes that are not all hole; of a device, its size. Raises DiskMissing."""
    if kind_of(path) is ImageKind.BLOCK:
        return size_of(path)
    total = end = 0
    for offset, length in data_extents(path):
        start = max(offset - offset % block, end)
        end = max(end, -(-(offset + length) // block) * block)
        total += max(0, end - start)
    return min(total, size_of(path))


def dig_holes(path: str, *, timeout: float) -> None:
    """Turn the zeros of a file into holes, as fallocate(1) does. `timeout` in seconds.

    Raises ImageError, among others where the file system knows no holes.
    """
    try:
        run(["fallocate", "--dig-holes", path], timeout=timeout)
    except CommandFailed as error:
        raise ImageError(
            f"{path} is whole, but its holes could not be made anew: it takes more room than it needs.",
            evidence=error.evidence,
        ) from error


def data_extents(path: str) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts of a file that are no holes (lseek(2), SEEK_DATA)."""
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        position = 0
        while position < end:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole follows
                    return
                raise
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, position - start


def info(path: str, image_format: str, *, force_share: bool = True) -> ImageInfo:
    """One image, without the rest of its chain. `force_share` is for an image that a guest has open.

    Raises DiskMissing, ImageError.
    """
    kind = kind_of(path)
    size = size_of(path)
    if image_format == "raw":
        return ImageInfo(_image(path, "raw", kind=kind, virtual_size=-(-size // _SECTOR) * _SECTOR, size=size))
    share = ["-U"] if force_share else []
    found = parse_info(_qemu_img("info", "--output=json", *share, "-f", image_format, path, timeout=INFO_TIMEOUT))
    image = _image(path, image_format, kind=kind, virtual_size=found.virtual_size, size=size)
    return ImageInfo(
        image=image,
        backing=found.backing,
        backing_format=found.backing_format,
        data_file=found.data_file,
        encrypted=found.encrypted,
        corrupt=found.corrupt,
        snapshots=found.snapshots,
    )


def _image(path: str, image_format: str, *, kind: ImageKind, virtual_size: int, size: int) -> Image:
    linked = kind is ImageKind.FILE and Path(path).is_symlink()
    elsewhere = linked or os.path.normpath(path) != path
    return Image(
        path=path,
        format=image_format,
        kind=kind,
        virtual_size=virtual_size,
        size=size,
        link_target=os.path.realpath(path) if elsewhere else "",
    )


def walk(path: str, image_format: str, *, formats: Mapping[str, str] | None = None) -> tuple[ImageInfo, ...]:
    """An image and its backing files, as far as they are files of this host whose format is known.

    `formats` gives the format of backing files whose image does not record it: from a live definition, where
    libvirt had to settle it. `obstacle` tells why the walk ended early, if it did.

    Raises DiskMissing naming the file that is gone, ImageError for a loop or an unreadable image.
    """
    chain: list[ImageInfo] = []
    seen: set[tuple[int, int]] = set()
    above = ""
    while True:
        found = _below(path, image_format, above=above)
        identity = _stat(path).st_dev, _stat(path).st_ino
        if identity in seen:
            raise ImageError(
                f"The backing files of {chain[0].image.path} form a loop.",
                evidence=f"{above} names {path} as its backing file",
                remedy="Correct it with qemu-img rebase -u.",
            )
        seen.add(identity)
        chain.append(found)
        next_format = found.backing_format or (formats or {}).get(found.backing, "")
        if not found.backing or not next_format or not is_local_path(found.backing):
            return tuple(chain)
        above, path, image_format = path, found.backing, next_format


def _below(path: str, image_format: str, *, above: str) -> ImageInfo:
    try:
        return info(path, image_format)
    except DiskMissing as error:
        if not above:
            raise
        raise DiskMissing(
            f"The backing file {path} of {above} cannot be read.",
            evidence=error.evidence,
            remedy=error.remedy,
        ) from error


def chain(path: str, image_format: str, *, formats: Mapping[str, str] | None = None) -> tuple[Image, ...]:
    """The whole chain, the given image first. Raises DiskMissing, or ImageError if it leads elsewhere."""
    found = walk(path, image_format, formats=formats)
    if reason := obstacle(found):
        raise ImageError(f"The chain of {path} cannot be followed.", evidence=reason)
    return tuple(each.image for each in found)


def commit(overlay: str, *, base: str, base_format: str, timeout: float) -> None:
    """Write an overlay's content into `base`, its direct backing file, of a domain that is shut off.

    Nothing below `base` is opened for writing. The overlay is emptied at the end, so that it can never again
    overwrite a newer base, and a second call does no harm. `timeout` in seconds.

    Raises DiskMissing; ImageError when the overlay does not lie on `base` or somebody has it open.
    """
    found = info(overlay, "qcow2", force_share=False)
    if not _same(found.backing, base) or found.backing_format != base_format:
        raise ImageError(
            f"{overlay} does not lie on {base} ({base_format}); it was not committed.",
            evidence=f"its backing file is {found.backing or 'none'} ({found.backing_format or 'no format'})",
            remedy="If the base is encrypted, start the VM and run vmborg recover. Else somebody changed the chain; "
            "look at qemu-img info --backing-chain.",
        )
    _qemu_img("commit", "-q", "-f", "qcow2", overlay, timeout=timeout)


def _same(one: str, other: str) -> bool:
    return is_local_path(one) and os.path.realpath(one) == os.path.realpath(other)


def check(path: str, image_format: str, *, timeout: float) -> CheckResult:
    """Whether an image's tables are sound; a raw image has none. `timeout` in seconds. Raises ImageError."""
    kind_of(path)
    if image_format == "raw":
        return CheckResult(corruptions=0, leaks=0, errors=0)
    argv = ["qemu-img", "check", "--output=json", "-f", image_format, path]
    done = run(argv, timeout=timeout, check=False)
    if done.returncode in {0, _CHECK_CORRUPT, _CHECK_LEAKS}:
        return parse_check(done.stdout)
    raise ImageError(f"qemu-img cannot check {path}.", evidence=describe(argv, done.returncode, done.stderr))


def convert(source: str, source_format: str, *, target: str, target_format: str, timeout: float) -> None:
    """Copy the content of a whole chain into one new image, holes left out. `timeout` in seconds."""
    kind_of(source)
    _qemu_img("convert", "-q", "-f", source_format, "-O", target_format, source, target, timeout=timeout)


def rebase_unsafe(path: str, *, backing: str, backing_format: str) -> None:
    """Change the name of a qcow2 image's backing file, not its content; "" for no backing file."""
    kind_of(path)
    name = ["-F", backing_format] if backing else []
    _qemu_img("rebase", "-q", "-u", "-f", "qcow2", *name, "-b", backing, path, timeout=INFO_TIMEOUT)


def create_overlay(path: str, *, backing: str, backing_format: str, size: int = 0) -> None:
    """A new, empty qcow2 image on top of another. Raises ImageError for a file that exists, DiskMissing.

    With `size` (bytes the guest sees) the image below is not looked at: it may be one that nobody vouches for.
    """
    if os.path.lexists(path):
        raise ImageError(f"{path} exists already; it was not overwritten.")
    kind_of(backing)
    unseen = ["-u", "-o", f"size={size}"] if size else []
    _qemu_img("create", "-q", *unseen, "-f", "qcow2", "-F", backing_format, "-b", backing, path, timeout=INFO_TIMEOUT)


def remove_bitmap(path: str, name: str) -> None:
    """Remove a dirty bitmap from a qcow2 image that no guest uses. Raises ImageError, DiskMissing."""
    kind_of(path)
    _qemu_img("bitmap", "--remove", "-f", "qcow2", path, name, timeout=INFO_TIMEOUT)


def _qemu_img(*arguments: str, timeout: float) -> str:
    try:
        return run(["qemu-img", *arguments], timeout=timeout).stdout
    except CommandFailed as error:
        raise ImageError(
            f"qemu-img {arguments[0]} failed for {arguments[-1]}.",
            evidence=error.evidence,
            remedy=_remedy(error),
        ) from error


def _remedy(error: CommandFailed) -> str:
    known = {
        '" lock': "Another process has it open; shut the guest off, or end that process.",
        "No space left": "Free space on that file system.",
        "Permission denied": "Run this as root.",
        "key-secret": "Its base is encrypted: start the VM, whose definition knows the secret; then vmborg recover.",
        "not in qcow2 format": "The definition says qcow2; look at the file, or correct the definition.",
    }
    return next((remedy for text, remedy in known.items() if text in error.evidence), "")
