"""Spoil a repository as broken storage does."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import utime
from pathlib import Path


def segments(repository: Path) -> list[Path]:
    """The segment files of a repository, by number."""
    return sorted(
        (path for path in (repository / "data").rglob("*") if path.is_file()), key=lambda path: int(path.name)
    )


def largest_segment(repository: Path) -> Path:
    """The segment with the most data."""
    return max(segments(repository), key=lambda path: path.stat().st_size)


@contextmanager
def flipped_byte(path: Path, *, at: float = 0.5) -> Iterator[None]:
    """One bit of the file is another one for the length of the block; size and time stay."""
    facts, content = path.stat(), path.read_bytes()
    place = int(len(content) * at)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(content)
        utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
