"""What comes out is what went in: exactly the paths that were asked for, holes as holes."""

import os
from pathlib import Path

import pytest

from infra.borg.client import Repository
from infra.borg.messages import PercentProgress
from infra.errors import ArchiveIncomplete, NoSpace
from infra.process import run
from tests.integration.borg.conftest import MIB, content, store

pytestmark = pytest.mark.integration

ODD = ["a[1].qcow2", "*.img", "?", "-dash.img", "a b", "re:x", "pp:a", "sh:*", "ünï", "{now}", "a'b\"c", "%41", "!a"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty directory."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_odd_names(repository: Repository, tmp_path: Path, out: Path) -> None:
    """A name with characters of a pattern, an option or a placeholder means itself alone."""
    source = tmp_path / "source"
    for seed, name in enumerate([*ODD, "a1.qcow2", "b.img", "x"]):
        content(source / name, size=100, seed=seed)
    store(repository, "a", *(source / name for name in os.listdir(source)))  # noqa: PTH208 - names alone
    for name in ODD:
        target = out / "each"
        target.mkdir()
        repository.extract("a", [str(source / name)[1:]], target)
        assert files(target) == {str(source / name)[1:]: (source / name).read_bytes()}
        run(["rm", "-r", str(target)], timeout=60)
    repository.extract("a", [str(source / name)[1:] for name in ODD], out)
    assert {Path(name).name for name in files(out)} == set(ODD)


def test_directory_and_neighbour(repository: Repository, tmp_path: Path, out: Path) -> None:
    """A directory comes with what is in it, and without what only begins alike."""
    content(tmp_path / "run" / "vmborg" / "manifest.json", size=10)
    content(tmp_path / "run" / "vmborg2" / "x", size=10)
    store(repository, "a", f"{tmp_path}/run/./vmborg", f"{tmp_path}/run/./vmborg2")
    repository.extract("a", ["vmborg"], out)
    assert list(files(out)) == ["vmborg/manifest.json"]


def test_everything(repository: Repository, tmp_path: Path, out: Path) -> None:
    """Without paths the whole archive is extracted, with progress up to its size."""
    one = content(tmp_path / "one", size=20 * MIB)
    two = content(tmp_path / "two", size=3 * MIB, seed=2)
    store(repository, "a", one, two)
    seen: list[PercentProgress] = []
    repository.extract("a", [], out, on_progress=seen.append)
    assert files(out) == {str(one)[1:]: one.read_bytes(), str(two)[1:]: two.read_bytes()}
    assert max(progress.current for progress in seen) == 23 * MIB
    assert {progress.total for progress in seen if progress.current} == {23 * MIB}


def test_holes_stay_holes(repository: Repository, tmp_path: Path, out: Path) -> None:
    """A sparse image of 512 MiB with little in it takes little when it is back, and is the same."""
    image = tmp_path / "image.raw"
    with image.open("wb") as file:
        file.truncate(512 * MIB)
        for place in (0, 100, 511):
            file.seek(place * MIB)
            file.write(os.urandom(MIB))
    store(repository, "a", image)
    repository.extract("a", [str(image)[1:]], out)
    copy = out / str(image)[1:]
    assert copy.stat().st_size == 512 * MIB
    assert copy.stat().st_blocks * 512 <= 16 * MIB
    run(["cmp", str(image), str(copy)], timeout=120)


def test_path_that_is_not_there(repository: Repository, tmp_path: Path, out: Path) -> None:
    """A path that the archive does not hold is an error that names it, not an empty success."""
    store(repository, "a", content(tmp_path / "x", size=1))
    with pytest.raises(ArchiveIncomplete) as caught:
        repository.extract("a", ["vmborg/manifest.json"], out)
    assert "vmborg/manifest.json" in caught.value.evidence
    with (tmp_path / "copy").open("wb") as copy, pytest.raises(ArchiveIncomplete):
        repository.extract_to("a", "vmborg/manifest.json", copy)


def test_no_room(repository: Repository, tmp_path: Path, out: Path) -> None:
    """A full file system below the target is told as such."""
    image = content(tmp_path / "image", size=30 * MIB)
    store(repository, "a", image)
    run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(out)], timeout=60)
    try:
        with pytest.raises(NoSpace) as caught:
            repository.extract("a", [str(image)[1:]], out)
    finally:
        run(["umount", str(out)], timeout=60)
    assert str(out) in caught.value.brief
    assert caught.value.remedy


def test_onto_a_device(repository: Repository, tmp_path: Path) -> None:
    """An image is written over a block device with its holes as zeros."""
    image = tmp_path / "image.raw"
    with image.open("wb") as file:
        file.truncate(12 * MIB)
        file.seek(9 * MIB)
        file.write(os.urandom(MIB))
    store(repository, "a", image)
    backing = content(tmp_path / "backing", size=12 * MIB)
    device = run(["losetup", "--find", "--show", str(backing)], timeout=60).stdout.strip()
    try:
        with Path(device).open("wb") as target:
            repository.extract_to("a", str(image)[1:], target)
            os.fsync(target.fileno())
    finally:
        run(["losetup", "--detach", device], timeout=60)
    assert backing.read_bytes() == image.read_bytes()


def test_onto_a_device_that_is_too_small(repository: Repository, tmp_path: Path) -> None:
    """A device that cannot take it all is no success."""
    image = content(tmp_path / "image.raw", size=12 * MIB)
    store(repository, "a", image)
    backing = content(tmp_path / "backing", size=4 * MIB)
    device = run(["losetup", "--find", "--show", str(backing)], timeout=60).stdout.strip()
    try:
        with Path(device).open("wb") as target, pytest.raises(NoSpace) as caught:
            repository.extract_to("a", str(image)[1:], target)
    finally:
        run(["losetup", "--detach", device], timeout=60)
    assert device in caught.value.brief


def test_binary_content(repository: Repository, tmp_path: Path) -> None:
    """Every byte survives the way through borg's standard output."""
    source = content(tmp_path / "bytes", size=MIB)
    store(repository, "a", source)
    with (tmp_path / "copy").open("wb") as copy:
        repository.extract_to("a", str(source)[1:], copy)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
