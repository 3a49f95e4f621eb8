"""Holes that are dug in files, on file systems that know them and on one that does not."""

from pathlib import Path

import pytest

from infra.errors import ImageError
from infra.hypervisor import images
from infra.process import run

pytestmark = pytest.mark.integration

MIB = 1024**2
CONTENT = b"d" * MIB + bytes(14 * MIB) + b"e" * MIB


def test_zeros_become_holes(tmp_path: Path) -> None:
    """A file of mostly zeros takes what its data takes, and reads as before."""
    path = tmp_path / "image.raw"
    path.write_bytes(CONTENT)
    assert images.allocated(str(path)) >= 16 * MIB
    images.dig_holes(str(path), timeout=60)
    assert images.allocated(str(path)) <= 3 * MIB
    assert path.read_bytes() == CONTENT


def test_a_file_system_without_holes(tmp_path: Path) -> None:
    """Where nothing can be dug the error says that the file is whole, and it is."""
    run(["mount", "-t", "ramfs", "none", str(tmp_path)], timeout=60)
    try:
        path = tmp_path / "image.raw"
        path.write_bytes(CONTENT)
        with pytest.raises(ImageError, match="is whole"):
            images.dig_holes(str(path), timeout=60)
        assert path.read_bytes() == CONTENT
    finally:
        run(["umount", str(tmp_path)], timeout=60)
