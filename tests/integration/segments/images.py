"""Images for these tests, written to by qemu's own tools, as a guest would."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from infra.process import run

MIB = 1024**2
_PATTERNS = 255


def qemu_io(path: Path, commands: Sequence[str]) -> None:
    """Carry out commands of qemu-io(1) on an image."""
    arguments = [part for command in commands for part in ("-c", command)]
    run(["qemu-io", "-f", "qcow2", *arguments, str(path)], timeout=120)


def some_writes(chance: random.Random, size: int, count: int) -> list[str]:
    """Writes, zeros and discards at random places, as commands of qemu-io."""
    found: list[str] = []
    for _ in range(count):
        length = chance.choice((512, 4096, 65536, chance.randrange(512, 300_000) // 512 * 512))
        offset = chance.randrange(0, size - length) // 512 * 512
        kind = chance.choices((f"write -P {chance.randrange(1, _PATTERNS)}", "write -z", "discard"), (6, 1, 1))[0]
        found.append(f"{kind} {offset} {length}")
    return found


def make_image(path: Path, *, size: int, options: str = "compat=1.1") -> Path:
    """A new, empty image."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(size)], timeout=60)
    return path


def add_bitmap(path: Path, name: str) -> None:
    """What libvirt does for a checkpoint."""
    run(["qemu-img", "bitmap", "--add", str(path), name], timeout=60)


def drop_bitmaps(path: Path, *, keep: str = "", only_broken: bool = False) -> None:
    """Remove the bitmaps of an image; `only_broken` those that a crash left in use, which hinder a resize."""
    shown = json.loads(run(["qemu-img", "info", "--output=json", "-f", "qcow2", str(path)], timeout=60).stdout)
    for bitmap in shown["format-specific"]["data"].get("bitmaps", []):
        if bitmap["name"] != keep and (not only_broken or "in-use" in bitmap["flags"]):
            run(["qemu-img", "bitmap", "--remove", str(path), bitmap["name"]], timeout=60)


def content_of(path: Path) -> bytes:
    """What a guest would read, as qemu-img tells."""
    target = path.with_name(f"{path.name}.raw")
    run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(path), str(target)], timeout=120)
    try:
        return target.read_bytes()
    finally:
        target.unlink()


def crash(path: Path, commands: Sequence[str]) -> None:
    """Carry out commands of qemu-io(1) by a program that is killed afterwards: its bitmaps stay in use."""
    arguments = [part for command in (*commands, "flush", "sigraise 9") for part in ("-c", command)]
    done = run(["qemu-io", "-f", "qcow2", *arguments, str(path)], timeout=60, check=False)
    assert done.returncode < 0
