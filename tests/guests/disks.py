"""Disk images for the guests, built offline: no loop device, no mount, no root needed."""

import random
import tempfile
from pathlib import Path

from infra.process import run
from tests.guests.waiting import GuestError

_FILE_SIZE = 64 * 1024**2
_BLOCK_SIZE = 1024**2


def make_disk(
    path: Path,
    *,
    size: int,
    format: str = "qcow2",  # noqa: A002 - libvirt's and qemu's own word
    data: int = 0,
    seed: int = 0,
    backing: Path | None = None,
    formatted: bool = True,
) -> Path:
    """Make an image of `size` bytes with ext4 on the whole disk, and return its path.

    `data` is how many bytes of files it holds (half incompressible, half text), the same for the same `seed`.
    `backing` makes a linked clone of that image instead (`size` 0: as big as it). `formatted=False` leaves it blank.
    """
    if backing is not None:
        if data or format != "qcow2":
            raise GuestError("a clone is qcow2 and holds what its template holds")
        _create_clone(path, backing, size=size)
        return path
    if not formatted:
        run(["qemu-img", "create", "-q", "-f", format, str(path), str(size)], timeout=60)
        return path
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".disk-") as work:
        files = Path(work, "files")
        files.mkdir()
        _write_files(files, data=data, seed=seed)
        raw = path if format == "raw" else Path(work, "raw")
        run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", str(files), str(raw), f"{size // 1024}k"], timeout=600
        )
        if raw != path:
            run(["qemu-img", "convert", "-f", "raw", "-O", format, str(raw), str(path)], timeout=600)
    return path


def image_format(path: Path) -> str:
    """What qemu-img takes the image for."""
    shown = run(["qemu-img", "info", "-U", str(path)], timeout=60).stdout
    return next(line.partition(": ")[2] for line in shown.splitlines() if line.startswith("file format: "))


def _create_clone(path: Path, backing: Path, *, size: int) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", image_format(backing), str(path)]
    run([*command, str(size)] if size else command, timeout=60)


def _write_files(directory: Path, *, data: int, seed: int) -> None:
    generator = random.Random(seed)
    vocabulary = [_word(generator) for _ in range(4096)]
    for number, start in enumerate(range(0, data, _FILE_SIZE)):
        with (directory / f"data-{number:04}").open("wb") as file:
            remaining = min(_FILE_SIZE, data - start)
            while remaining > 0:
                block = _block(generator, vocabulary)[:remaining]
                file.write(block)
                remaining -= len(block)


def _block(generator: random.Random, vocabulary: list[bytes]) -> bytes:
    half = _BLOCK_SIZE // 2
    text = b" ".join(generator.choices(vocabulary, k=half // 8))
    return generator.randbytes(half) + text[:half].ljust(half, b".")


def _word(generator: random.Random) -> bytes:
    return bytes(generator.choices(b"abcdefghijklmnopqrstuvwxyz", k=generator.randint(4, 16)))
