"""From an archive to checked files beside their targets: extract, verify, link the chains, flatten.

borg writes straight into the staging directory, so the content is written once and moved by a rename.
"""

import hashlib
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from infra.borg.client import Repository
from infra.errors import ArchiveIncomplete, ImageError, TargetExists, UnsafeArchive
from infra.hypervisor import images
from infra.hypervisor.image_info import SUPPORTED_FORMATS
from infra.manifest import ManifestImage
from infra.qcow2.header import read_header
from tasks.restore.model import ChainPlan, FilePlan, Plan, Rule, TpmPlan
from tasks.restore.segments import extract_disk
from tasks.restore.workspace import Workspace

IMAGE_TIMEOUT_S = 24 * 3600.0
"""For qemu-img check and convert: they take as long as the storage needs."""

_READ = 4 * 1024 * 1024
_WASTE = 1024 * 1024
"""Bytes; for less no image is read a second time."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Where an archived file is now and where it will be."""

    plan: FilePlan
    path: Path


def extract_images(
    repository: Repository, archive: str, plan: Plan, *, workspace: Workspace, progress: Progress
) -> dict[str, Staged]:
    """Extract every image file of the plan beside its target; by archive path.

    Raises ArchiveIncomplete (an image is not as promised), StorageError, and borg's typed errors.
    """
    by_directory: dict[Path, list[FilePlan]] = defaultdict(list)
    for file in plan.files:
        by_directory[file.directory].append(file)
    total, done = sum(file.size for file in plan.files) + sum(device.size for device in plan.devices), 0
    staged: dict[str, Staged] = {}
    for directory, files in by_directory.items():
        staging = workspace.staging(directory)
        before = done
        whole = [file for file in files if not file.segments]
        if whole:
            repository.extract(
                archive,
                [file.archive_path for file in whole],
                staging,
                on_progress=lambda step, before=before: progress(before + step.current, total),
            )
        for file in files:
            path = staging / file.archive_path
            if file.segments:
                extract_disk(repository, archive, file, path)
                progress(done + file.size, total)
            staged[file.archive_path] = Staged(file, path if file.segments else _accept(path, file))
            done += file.size
    return staged


def dig_holes(staged: Iterable[Staged]) -> Iterator[ImageError]:
    """Give back the room that the holes within extracted blocks take; what could not be dug, if anything.

    borg makes a hole of a block of zeros, not of the zeros in a block that holds data, too.
    """
    for each in staged:
        least = each.plan.allocated + max(_WASTE, each.plan.allocated // 64)
        if images.allocated(str(each.path)) > least:
            try:
                images.dig_holes(str(each.path), timeout=IMAGE_TIMEOUT_S)
            except ImageError as error:
                yield error


def _accept(path: Path, file: FilePlan) -> Path:
    """An extracted file: plain, of the promised size, and neither executable nor open to everybody."""
    try:
        status = path.lstat()
    except OSError as error:
        raise _incomplete(file.archive_path, f"it was not extracted: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise UnsafeArchive(
            "The archive holds something else than a plain file under a disk's name.",
            evidence=f"{file.archive_path}: {stat.filemode(status.st_mode)}, {status.st_nlink} links",
            remedy="vmborg never stores such; look at it with borg list.",
        )
    if status.st_size != file.size:
        raise _incomplete(file.archive_path, f"{status.st_size} bytes extracted, {file.size} expected")
    path.chmod(stat.S_IMODE(status.st_mode) & 0o664)
    return path


def _incomplete(archive_path: str, why: str) -> ArchiveIncomplete:
    return ArchiveIncomplete(
        "The archive does not hold what its manifest promises.",
        evidence=f"{archive_path}: {why}",
        remedy="Restore another archive, and look at this one with borg check --verify-data.",
    )


def stage_boot_files(plan: Plan, metadata: Path, workspace: Workspace) -> dict[str, Staged]:
    """Bring firmware state and boot files beside their targets; by archive path. Raises ArchiveIncomplete."""
    staged: dict[str, Staged] = {}
    for _, file in plan.boot_files:
        source = _accept(metadata / file.archive_path, file)
        with source.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.sha256:
            raise _incomplete(file.archive_path, f"SHA-256 is {digest}, {file.sha256} expected")
        path = workspace.staging(file.directory) / source.name
        shutil.copyfile(source, path)
        path.chmod(0o600 if file.rule is Rule.REPLACE or "nvram" in file.archive_path else 0o644)
        staged[file.archive_path] = Staged(file, path)
    return staged


def stage_tpm(tpm: TpmPlan, metadata: Path, workspace: Workspace) -> Path:
    """A TPM's state directory beside its target, readable by nobody else. Raises ArchiveIncomplete."""
    path = workspace.staging(Path(tpm.target).parent) / "tpm"
    path.mkdir(mode=0o711)
    for name in tpm.files:
        source, copy = metadata / tpm.archive_dir / name, path / name
        if not source.is_file():
            raise _incomplete(f"{tpm.archive_dir}/{name}", "it was not extracted")
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        copy.chmod(0o600)
    return path


def check_chain(chain: ChainPlan, staged: Mapping[str, Staged]) -> None:
    """Verify what was extracted of a disk: formats as promised, no way out of the chain, sound tables.

    Leaves each image linked to the extracted one below it. Raises UnsafeArchive, ImageError.
    """
    present = [(image, staged[image.archive_path].path) for image in chain.images if image.archive_path in staged]
    for image, path in present:
        check_header(image, path, last=image is chain.images[-1])
    for (_, path), (below, below_path) in pairwise(present):
        images.rebase_unsafe(str(path), backing=str(below_path), backing_format=below.format)
    for image, path in present:
        check_tables(image, path)


def check_header(image: ManifestImage, path: Path, *, last: bool) -> None:
    """Raise UnsafeArchive when an image wants files that the manifest does not name; ImageError for a wrong format."""
    if image.format not in SUPPORTED_FORMATS:
        raise UnsafeArchive(
            f"An image of the format {image.format} may name other files of the host; it is not restored.",
            evidence=image.archive_path,
            remedy="vmborg stores qcow2 and raw images only; bring back the files alone with --files-only.",
        )
    if image.format == "raw":
        outside = "" if last else "a backing file, which a raw image cannot have"
    else:
        header = read_header(path)
        outside = "its content in another file" if header.external_data else ""
        if last and header.backing:
            outside = f"the backing file {header.backing}"
    if outside:
        raise UnsafeArchive(
            "An image of the archive needs a file that the manifest does not name.",
            evidence=f"{image.archive_path} has {outside}",
            remedy="Do not use it unless you know why; `restore --files-only` brings back the files alone.",
        )


def check_tables(image: ManifestImage, path: Path) -> None:
    """`qemu-img check`. Leaked clusters are no damage. Raises ImageError."""
    result = images.check(str(path), image.format, timeout=IMAGE_TIMEOUT_S)
    if not result.clean:
        raise ImageError(
            f"The restored image of {image.source} is damaged.",
            evidence=f"qemu-img check: {result.corruptions} corruptions, {result.errors} errors",
            remedy="Restore another archive; this image was damaged when it was backed up, or in the repository.",
        )


def flatten(chain: ChainPlan, staged: dict[str, Staged]) -> None:
    """Make one image of a linked chain, in place of its active image. Raises ImageError."""
    top = staged[chain.images[0].archive_path]
    if len(chain.images) == 1:
        return
    flat = top.path.with_name(f"{top.path.name}.flat")
    source_format = chain.images[0].format
    images.convert(str(top.path), source_format, target=str(flat), target_format=source_format, timeout=IMAGE_TIMEOUT_S)
    flat.chmod(stat.S_IMODE(top.path.stat().st_mode))
    flat.replace(top.path)


def drop_backing(plan: Plan, staged: dict[str, Staged]) -> None:
    """After flattening: forget and delete the images that only lay below others."""
    tops = {chain.images[0].archive_path for chain in plan.chains}
    for archive_path in [each for each in staged if each not in tops]:
        staged.pop(archive_path).path.unlink()


def settle(staged: Mapping[str, Staged]) -> dict[str, str]:
    """The final path of every staged file, by archive path, once it is known what is there already.

    A file that may stay (Rule.KEEP) and is the same is deleted from the staging directory. Raises TargetExists.
    """
    return {archive_path: _settle(each) for archive_path, each in staged.items()}


def _settle(staged: Staged) -> str:
    file = staged.plan
    if file.rule is not Rule.KEEP:
        return file.target
    for path in (file.target, file.beside):
        if os.path.lexists(path) and same_content(str(staged.path), path):
            staged.path.unlink()
            return path
    if not os.path.lexists(file.target) and not file.only_beside:
        return file.target
    if os.path.lexists(file.beside):
        raise TargetExists(
            f"{file.beside} exists already; nothing was changed.",
            evidence=f"{file.target} is not the archived one and stays; that one would go here",
            remedy="Move it away and try again.",
        )
    return file.beside


def same_content(one: str, other: str) -> bool:
    """Whether two files or devices hold the same bytes. Raises DiskMissing."""
    if images.size_of(one) != images.size_of(other):
        return False
    with Path(one).open("rb") as left, Path(other).open("rb") as right:
        while block := left.read(_READ):
            if block != right.read(_READ):
                return False
    return True


def link_chain(chain: ChainPlan, places: Mapping[str, str], final: Mapping[str, str]) -> None:
    """Write into each image of a disk where the one below it will be. `places` is where the images are now.

    Both by archive path; an image that is in neither stays as it is. Raises ImageError.
    """
    for image, below in pairwise(chain.images):
        if image.archive_path in places and below.archive_path in final:
            place = places[image.archive_path]
            if Path(place).exists():
                images.rebase_unsafe(place, backing=final[below.archive_path], backing_format=below.format)


def sync(paths: list[Path]) -> None:
    """Bring files to the disk before what they replace is deleted: fsync(2) of each and of its directory."""
    for path in {*paths, *(path.parent for path in paths)}:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
