"""Read one archive back, every disk of it, and compare it with what its manifest promises. Nothing is stored.

borg verifies the checksum (and, with encryption, the authenticity) of every block that it extracts; what is compared
beside that are the manifest's facts: the size of each image, its format's own header, the SHA-256 of boot files.
"""

import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from infra.borg.client import Repository
from infra.errors import ArchiveIncomplete
from infra.manifest import ARCHIVE_DIR, Manifest, ManifestImage, parse
from infra.model import Layout

_HEAD = 4096
_BLOCK = 1024 * 1024
_QCOW2 = b"QFI\xfb"
_VIRTUAL_SIZE = struct.Struct(">24xQ")  # docs/interop/qcow2.txt of qemu


@dataclass(frozen=True, slots=True)
class Sample:
    """An archive that was read; bytes."""

    archive: str
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class _Read:
    """What came out of one file of an archive."""

    size: int
    head: bytes
    sha256: str


def read_sample(repository: Repository, archive: str) -> Sample:
    """Read every disk and boot file of an archive.

    Raises ArchiveIncomplete (it is not what its manifest promises), ManifestError, BorgError's subtypes.
    """
    manifest = parse(repository.extract_stdout(archive, f"{ARCHIVE_DIR}/manifest.json"))
    wrong: list[str] = []
    files = size = 0
    for image, layout in _images(manifest):
        read = _read(repository, archive, image.archive_path)
        wrong += [f"{image.archive_path}: {problem}" for problem in _image_problems(image, layout, read)]
        files, size = files + 1, size + read.size
    for file in manifest.boot_files:
        read = _read(repository, archive, file.archive_path)
        if (read.size, read.sha256) != (file.size, file.sha256):
            wrong.append(f"{file.archive_path}: another content than at the backup")
        files, size = files + 1, size + read.size
    if wrong:
        raise ArchiveIncomplete(
            f"What is in {archive} is not what its manifest promises.",
            evidence="\n".join(wrong),
            remedy="Hold an earlier archive (`vmborg hold`), back the VM up again, and look at the storage.",
        )
    return Sample(archive, files, size)


def _images(manifest: Manifest) -> Iterator[tuple[ManifestImage, Layout]]:
    """Each image once: linked clones share their template."""
    found = {image.archive_path: (image, disk.layout) for disk in manifest.disks for image in disk.chain}
    yield from found.values()


def _image_problems(image: ManifestImage, layout: Layout, read: _Read) -> Iterator[str]:
    if read.size != image.size:
        yield f"{read.size} bytes, {image.size} expected"
    if image.format == "raw" and read.size != image.virtual_size:
        yield f"a raw image of {read.size} bytes, {image.virtual_size} expected"
    if image.format == "qcow2" and layout is Layout.IMAGE:  # segments are what the guest sees
        if not read.head.startswith(_QCOW2) or len(read.head) < _VIRTUAL_SIZE.size:
            yield "its header is not that of a qcow2 image"
        elif _VIRTUAL_SIZE.unpack_from(read.head)[0] != image.virtual_size:
            yield f"its header does not say {image.virtual_size} bytes of virtual size"


def _read(repository: Repository, archive: str, path: str) -> _Read:
    """Extract one file into a pipe that is read to its end here."""
    reader, writer = os.pipe()
    found: list[_Read] = []
    drain = threading.Thread(target=lambda: found.append(_drain(reader)), name="sample", daemon=True)
    drain.start()
    try:
        with os.fdopen(writer, "wb") as file:
            repository.extract_to(archive, path, file)
    finally:
        drain.join()
    return found[0]


def _drain(reader: int) -> _Read:
    digest, size, head = hashlib.sha256(), 0, b""
    with os.fdopen(reader, "rb") as pipe:
        while block := pipe.read(_BLOCK):
            head = head or block[:_HEAD]
            size += len(block)
            digest.update(block)
    return _Read(size, head, digest.hexdigest())
