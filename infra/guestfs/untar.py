"""A tar stream from a guest, unpacked below one folder and nowhere else.

Nobody vouches for the stream. So every part of a path is opened by itself and never through a symbolic link; links
are made as they are, and never followed. Blocks of zeros become holes.
"""

import os
import stat
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from infra.errors import StorageError, UnsafeArchive

_BLOCK = 64 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o7777


@dataclass(slots=True)
class Unpacked:
    """What came out. Bytes."""

    files: int = 0
    size: int = 0
    left_out: list[str] = field(default_factory=list[str])  # devices, sockets and pipes


class Unpacker:
    """Writes below one folder, which must be there."""

    def __init__(self, folder: Path, *, owners: bool) -> None:
        self._root = os.open(folder, _FOLDER)
        self._owners = owners  # give files to the users that they have in the guest; only root can
        self._later: list[tuple[list[str], tarfile.TarInfo]] = []
        self.done = Unpacked()

    def close(self) -> None:
        """Give the folders their modes and times, the inner ones first, and close. Raises OSError."""
        try:
            for parts, member in reversed(self._later):
                with self._parent(parts) as parent:
                    self._attributes(member, parts[-1], parent)
        finally:
            os.close(self._root)

    def stream(self, source: IO[bytes], *, below: str) -> None:
        """Unpack a whole stream into the folder `below`. Raises UnsafeArchive, StorageError."""
        try:
            with tarfile.open(fileobj=source, mode="r|", errors="surrogateescape") as archive:
                for member in archive:
                    self.add(member, archive.extractfile(member) if member.isreg() else None, below=below)
        except (OSError, tarfile.TarError) as error:
            raise _failed(error) from error

    def add(self, member: tarfile.TarInfo, content: IO[bytes] | None, *, below: str = "") -> None:
        """One file, folder or link. Raises UnsafeArchive, OSError."""
        parts = [*_parts(below), *_parts(member.name)]
        if not parts:
            return
        with self._parent(parts) as parent:
            name = parts[-1]
            if member.isdir():
                _make_folder(name, parent)
                self._later.append((parts, member))
                return
            if member.islnk():
                self._link([*_parts(below), *_parts(member.linkname)], name, parent)
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=parent)
                self._own(member, name, parent)
            elif content is not None:
                self._file(member, content, name, parent)
            else:
                self.done.left_out.append("/".join(parts))
                return
            self.done.files += 1

    def _file(self, member: tarfile.TarInfo, content: IO[bytes], name: str, parent: int) -> None:
        with os.fdopen(os.open(name, _FILE, 0o600, dir_fd=parent), "wb", buffering=0) as file:
            self.done.size += _write_sparse(content, file)
        self._attributes(member, name, parent)

    def _link(self, target: list[str], name: str, parent: int) -> None:
        with self._parent(target) as where:
            os.link(target[-1], name, src_dir_fd=where, dst_dir_fd=parent, follow_symlinks=False)

    def _attributes(self, member: tarfile.TarInfo, name: str, parent: int) -> None:
        self._own(member, name, parent)
        mode = member.mode & (_MODE if self._owners else 0o777)  # set-user-ID would be ours
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.fchmod(descriptor, mode)
            os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)

    def _own(self, member: tarfile.TarInfo, name: str, parent: int) -> None:
        if self._owners:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)

    @contextmanager
    def _parent(self, parts: list[str]) -> Generator[int]:
        """The folder that the last part is in, made if it is not there; never reached through a link."""
        descriptor = os.dup(self._root)
        try:
            for part in parts[:-1]:
                _make_folder(part, descriptor)
                inner = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise UnsafeArchive(
            "The guest's file system names a file outside of itself.",
            evidence=repr(name),
            remedy="It is damaged or hostile; look at it with `vmborg files VM mount DIR`.",
        )
    return parts


def _make_folder(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise UnsafeArchive(
                "The guest's file system leads through a link out of the folder that its files go to.",
                evidence=repr(name),
                remedy="Take a new or empty folder for --to; if it is one, the file system is damaged or hostile.",
            ) from None


def _write_sparse(content: IO[bytes], file: IO[bytes]) -> int:
    size = 0
    while block := content.read(_BLOCK):
        if block.count(0) == len(block):
            file.seek(len(block), os.SEEK_CUR)
        else:
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
        size += len(block)
    file.truncate(size)
    return size


def _failed(error: Exception) -> StorageError:
    return StorageError(
        "What was read from the guest cannot be written.",
        evidence=str(error),
        remedy="Look at the space and the kind of the file system of --to; links and unusual names need one of Linux.",
    )
