"""Small file systems that fill up, turn read-only or are not mounted."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.process import run
from tests.integration.bare import MIB

FILLER = "filler"
KIB = 1024
BLOCK = 4 * KIB


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Volume:
    """An ext4 file system of its own, mounted at `folder`. Made by `volume`."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self.folder = folder

    def mount(self) -> None:
        """Mount it."""
        run(["mount", "-o", "loop", str(self._image), str(self.folder)], timeout=30)

    def unmount(self) -> None:
        """Unmount it: an empty folder is left."""
        run(["umount", str(self.folder)], timeout=30)

    def remount(self, how: str) -> None:
        """Read-only (`ro`) or not (`rw`)."""
        run(["mount", "-o", f"remount,{how}", str(self.folder)], timeout=30)

    def fill(self) -> None:
        """Take all that is free; `free` gives it back."""
        with (self.folder / FILLER).open("wb", buffering=0) as file:
            # In steps: the file system needs some of the space for its own list of the blocks.
            for step in (64 * MIB, MIB, 64 * KIB, BLOCK):
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), step)
        assert _free(self.folder) == 0

    def free(self) -> None:
        """Undo `fill`."""
        (self.folder / FILLER).unlink(missing_ok=True)


@contextmanager
def volume(folder: Path, size: int) -> Iterator[Volume]:
    """A file system of `size` bytes at `folder`, which is made; its image lies beside it."""
    image = folder.with_name(f".{folder.name}.ext4")
    with image.open("wb") as file:
        file.truncate(size)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", str(image)], timeout=60)
    folder.mkdir(parents=True)
    mounted = Volume(image, folder)
    mounted.mount()
    try:
        (folder / "lost+found").rmdir()
        folder.chmod(0o755)
        yield mounted
    finally:
        mounted.unmount()
        image.unlink()
