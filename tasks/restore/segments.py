"""A disk that is archived as segments becomes one qcow2 image again, in one pass."""

import errno
import fcntl
import os
import threading
from pathlib import Path

from infra.borg.client import Repository
from infra.errors import ArchiveIncomplete, NoSpace, StorageError
from infra.qcow2.writer import Qcow2Writer
from tasks.restore.model import FilePlan

_BLOCK = 4 * 1024**2
_PIPE = 1024**2


def extract_disk(repository: Repository, archive: str, file: FilePlan, path: Path) -> None:
    """Write the disk into a new image at `path`, readable by its owner alone.

    Raises ArchiveIncomplete (it is not as long as promised), NoSpace, StorageError, and borg's typed errors.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE)
    copy = _Copy(reader, path, file.size)
    copy.start()
    try:
        with os.fdopen(writer, "wb") as target:
            repository.extract_to(archive, file.archive_path, target)
    except Exception:
        copy.join()
        if copy.error is not None:  # borg's complaint is only that nobody reads on
            raise copy.error from None
        raise
    finally:
        copy.join()
    if copy.error is not None:
        raise copy.error


class _Copy(threading.Thread):
    """Reads the disk from a pipe and writes the image."""

    def __init__(self, reader: int, path: Path, size: int) -> None:
        super().__init__(name="segments", daemon=True)
        self._reader, self._path, self._size = reader, path, size
        self.error: Exception | None = None

    def run(self) -> None:
        """Until the pipe ends."""
        try:
            with os.fdopen(self._reader, "rb", buffering=0) as pipe, Qcow2Writer(self._path, self._size) as image:
                self._path.chmod(0o600)
                buffer = memoryview(bytearray(_BLOCK))
                while filled := _fill(pipe.fileno(), buffer):
                    image.write(buffer[:filled])
                image.finish()
        except ValueError as error:
            self.error = ArchiveIncomplete(
                "The archive does not hold what its manifest promises.",
                evidence=f"{self._path.name}: {error}",
                remedy="Restore another archive, and look at this one with borg check --verify-data.",
            )
        except OSError as error:
            kind = NoSpace if error.errno in _FULL else StorageError
            self.error = kind(
                f"The image {self._path.name} cannot be written.",
                evidence=f"{self._path}: {error.strerror}",
                remedy="Make room there, or restore to another place.",
            )


_FULL = {errno.ENOSPC, errno.EDQUOT}


def _fill(descriptor: int, buffer: memoryview) -> int:
    """Read until the buffer is full or the pipe ends."""
    filled = 0
    while filled < len(buffer) and (got := os.readv(descriptor, [buffer[filled:]])):
        filled += got
    return filled
