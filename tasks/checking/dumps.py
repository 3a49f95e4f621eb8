"""Read one archive of dumps back, every file of it, and compare it with its manifest. Nothing is stored."""

import hashlib
import os
import tarfile
import threading
from contextlib import suppress
from typing import IO

from infra.borg.client import Repository
from infra.borg.plain_files import export_files
from infra.dumps.manifest import FILE, parse
from infra.dumps.tree import CONTENT
from infra.errors import ArchiveIncomplete
from tasks.checking.sample import Sample

_BLOCK = 1024 * 1024
_SHOWN = 20


def read_dump_sample(repository: Repository, archive: str) -> Sample:
    """Read every dump of an archive.

    Raises ArchiveIncomplete (it is not what its manifest promises), ManifestError, BorgError's subtypes.
    """
    manifest = parse(repository.extract_stdout(archive, f"{CONTENT}/{FILE}"))
    found = _read(repository, archive)
    wrong: list[str] = []
    for dump in (dump for source in manifest.sources for dump in source.dumps):
        size, sha256 = found.get(f"{CONTENT}/{dump.path}", (0, "nothing"))
        if (size, sha256) != (dump.size, dump.sha256):
            wrong.append(f"{dump.path}: {size} bytes, sha256 {sha256}; expected {dump.size} bytes, {dump.sha256}")
    if wrong:
        raise ArchiveIncomplete(
            f"What is in {archive} is not what its manifest promises.",
            evidence="\n".join(wrong[:_SHOWN]),
            remedy="Hold an earlier archive (`vmborg hold`), pull the host again, and look at the storage.",
        )
    return Sample(archive, len(found), sum(size for size, _ in found.values()))


def _read(repository: Repository, archive: str) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every file, out of one stream: a call of borg for each would take days for a folder."""
    reader, writer = os.pipe()
    found: dict[str, tuple[int, str]] = {}
    drain = threading.Thread(target=_drain, args=(reader, found), name="sample", daemon=True)
    drain.start()
    try:
        with os.fdopen(writer, "wb") as pipe:
            export_files(repository, archive, CONTENT, pipe)
    finally:
        drain.join()
    return found


def _drain(reader: int, found: dict[str, tuple[int, str]]) -> None:
    with os.fdopen(reader, "rb") as pipe:
        with suppress(tarfile.TarError):  # borg ended early, and says why itself; or files are missing, which is seen
            _digest(pipe, found)
        while pipe.read(_BLOCK):
            continue


def _digest(pipe: IO[bytes], found: dict[str, tuple[int, str]]) -> None:
    with tarfile.open(fileobj=pipe, mode="r|") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None:
                digest = hashlib.sha256()
                while block := file.read(_BLOCK):
                    digest.update(block)
                found[member.name] = (member.size, digest.hexdigest())
