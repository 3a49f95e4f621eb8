"""Following backing files by the images' own headers."""

from pathlib import Path

import pytest

from infra.hypervisor.references import below
from infra.process import run


def overlay(path: Path, backing: str) -> str:
    """A new overlay that names its backing file as given, unchecked."""
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, str(path), "1M"]
    run(argv, timeout=30)
    return str(path)


def test_every_file_below_is_found(tmp_path: Path) -> None:
    """Absolute and relative names are followed to the end, missing files included."""
    gone = str(tmp_path / "gone.qcow2")
    middle = overlay(tmp_path / "middle.qcow2", "gone.qcow2")
    top = overlay(tmp_path / "top.qcow2", middle)
    assert list(below(top)) == [middle, gone]


@pytest.mark.parametrize(
    "name",
    [
        'json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{0}"}}}}',
        'json:{{"driver":"qcow2","file.filename":"{0}"}}',
        "file:{0}",
    ],
)
def test_pseudo_paths_are_looked_into(tmp_path: Path, name: str) -> None:
    """A file that is named inside a pseudo path is used all the same."""
    base = tmp_path / "base.qcow2"
    base.touch()
    assert str(base) in list(below(overlay(tmp_path / "top.qcow2", name.format(base))))


def test_a_loop_ends(tmp_path: Path) -> None:
    """Images that name each other are listed once."""
    first, second = tmp_path / "first.qcow2", tmp_path / "second.qcow2"
    overlay(first, str(second))
    overlay(second, str(first))
    assert list(below(str(first))) == [str(second)]


def test_what_is_no_qcow2_image_has_nothing_below(tmp_path: Path) -> None:
    """Raw content, an empty file, a missing file and a folder end the search without an error."""
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * 4096)
    empty = tmp_path / "empty"
    empty.touch()
    for path in (raw, empty, tmp_path / "missing", tmp_path):
        assert list(below(str(path))) == []
