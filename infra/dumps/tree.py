"""Where the dumps of one host are put together: `latest` always leads to a whole tree.

    HOST/latest             a link to the newest tree
    HOST/tree.RUN/dumps/    a tree: manifest.json and the dumps
    HOST/tree.RUN.making/   one in the making, or of a run that died

The folder `dumps` is what an archive holds (borg strips what stands before `/./`, and its files cache goes by the whole
path, which begins with HOST/latest every time).

A new tree is built beside the old one and takes its place by the rename of a link, which rename(2) does at once. What
is taken over from the old tree is a hard link, so it costs no space.
"""

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from infra.dumps.manifest import FILE, DumpManifest, read, render
from infra.errors import NoSpace, StorageError

CONTENT = "dumps"
_MAKING = ".making"


class Tree:
    """The trees of one host, in a folder of its own. Whoever writes holds the host's lock."""

    def __init__(self, directory: Path, run_id: str) -> None:
        self.directory = directory
        self._making = directory / f"tree.{run_id}{_MAKING}"
        self._final = directory / f"tree.{run_id}"

    @property
    def latest(self) -> Path:
        """The newest tree, by the name that it always has."""
        return self.directory / "latest"

    @property
    def content(self) -> Path:
        """The dumps of the newest tree."""
        return self.latest / CONTENT

    def previous(self) -> DumpManifest | None:
        """What the newest tree says of itself; None if there is none. Raises ManifestError."""
        return read(self.content)

    def begin(self) -> None:
        """Remove what dead runs left, and make an empty tree. Raises StorageError, NoSpace."""
        with storing(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.tidy()
            (self._making / CONTENT).mkdir(mode=0o700, parents=True)

    def path(self, relative: str) -> Path:
        """Where a file of the new tree is; its folder is made."""
        path = self._making / CONTENT / relative
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def adopt(self, relative: str) -> bool:
        """Take a file of the newest tree over into the new one, under the same path. False if it is not there."""
        source = self.content / relative
        if not source.is_file() or source.is_symlink():
            return False
        target = self.path(relative)
        if not target.exists():
            os.link(source, target)
        return True

    def commit(self, manifest: DumpManifest) -> None:
        """Write the manifest and let `latest` lead to the new tree. Raises StorageError, NoSpace."""
        with storing(self.directory):
            with create(self._making / CONTENT / FILE) as file:
                file.write(render(manifest).encode("utf-8"))
            _sync(self._making)
            self._making.rename(self._final)
            link = self.directory / "latest.new"
            link.unlink(missing_ok=True)
            link.symlink_to(self._final.name)
            link.replace(self.latest)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.tidy()

    def drop(self) -> None:
        """Remove the tree in the making."""
        shutil.rmtree(self._making, ignore_errors=True)

    def tidy(self) -> None:
        """Remove every tree but the newest."""
        keep = self.latest.resolve().name if self.latest.is_symlink() else ""
        for path in self.directory.glob("tree.*"):
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)


def create(path: Path) -> BinaryIO:
    """A new file, unbuffered, for its owner only: whoever extracts the archive one day gets it with this mode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    return cast("BinaryIO", os.fdopen(descriptor, "wb", buffering=0))


@contextmanager
def storing(place: Path) -> Generator[None]:
    """Errors of the file system, typed. Raises NoSpace, StorageError."""
    try:
        yield
    except OSError as error:
        evidence = f"{error.filename or place}: {error.strerror or error}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(
                f"There is no room left for dumps in {place}.",
                evidence=evidence,
                remedy="Make room there: it holds one uncompressed copy of each host's dumps, and a second while one "
                "is pulled.",
            ) from error
        raise StorageError(
            f"Dumps cannot be written to {place}.", evidence=evidence, remedy="Look at this path and its permissions."
        ) from error


def _sync(directory: Path) -> None:
    """Every file reaches the disk before the tree takes the place of the old one."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118 - of os.walk, thousands of times
            if os.path.islink(path):  # noqa: PTH114 - as above
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
