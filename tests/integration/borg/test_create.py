"""What a create stores, reads, tells and refuses."""

import os
import threading
from pathlib import Path

import pytest

from infra.borg.client import Repository
from infra.borg.command import binary
from infra.borg.comment import render_comment
from infra.borg.messages import ArchiveProgress
from infra.errors import ArchiveIncomplete
from infra.process import run
from tests.integration.borg.conftest import MIB, PASSPHRASE, RepositoryFactory, borg_child, content, names, store

pytestmark = pytest.mark.integration


def test_figures(repository: Repository, tmp_path: Path) -> None:
    """Sizes, status letters and progress are those of what was stored."""
    image = content(tmp_path / "images" / "a [1] *.raw", size=30 * MIB)
    seen: list[ArchiveProgress] = []
    first = store(repository, "a", image, on_progress=seen.append)
    assert first.original_size == 30 * MIB
    assert 30 * MIB <= first.deduplicated_size <= 31 * MIB
    assert first.files == {str(image): "A"}
    assert first.read_bytes >= 30 * MIB
    assert first.seconds > 0
    assert seen
    assert all(progress.original_size <= 30 * MIB for progress in seen)
    again = store(repository, "b", image)
    assert again.deduplicated_size < MIB
    assert again.repository_size == repository.info().stored > first.repository_size > 30 * MIB


def test_unchanged_image_is_not_read(repository: Repository, tmp_path: Path) -> None:
    """With a newer small file beside it, an unchanged image is taken from the files cache of its own VM."""
    image = content(tmp_path / "image.raw", size=64 * MIB)
    sentinel = content(tmp_path / "run" / "vmborg" / "manifest.json", size=100)
    paths = [image, f"{tmp_path}/run/./vmborg"]
    store(repository, "a", *paths, files_cache_suffix="one")
    content(sentinel, size=100, seed=1)
    second = store(repository, "b", *paths, files_cache_suffix="one")
    assert second.files == {str(image): "U", str(sentinel): "M"}
    assert second.read_bytes < 50 * MIB
    other = store(repository, "c", *paths, files_cache_suffix="two")
    assert other.files[str(image)] == "A"


def test_write_before_data(repository: Repository, tmp_path: Path) -> None:
    """What is written into a hole right before data costs its own block, not all data that follows."""
    image = tmp_path / "image.raw"
    with image.open("wb") as file:
        file.truncate(256 * MIB)
        file.seek(96 * MIB)
        file.write(os.urandom(64 * MIB))
    store(repository, "a", image)
    with image.open("r+b") as file:
        file.seek(96 * MIB - 65536)
        file.write(os.urandom(65536))
    assert store(repository, "b", image).deduplicated_size <= 5 * MIB


def test_layout(repository: Repository, tmp_path: Path) -> None:
    """Images keep their absolute path without its first slash; the staged directory is stored as `vmborg`."""
    image = content(tmp_path / "image.raw", size=5 * MIB)
    content(tmp_path / "run" / "vmborg" / "tpm" / "state", size=7)
    store(repository, "a", image, f"{tmp_path}/run/./vmborg")
    items = {item.path: (item.type, item.size) for item in repository.items("a")}
    assert items == {
        str(image)[1:]: ("-", 5 * MIB),
        "vmborg": ("d", 0),
        "vmborg/tpm": ("d", 0),
        "vmborg/tpm/state": ("-", 7),
    }


def test_block_device(repository: Repository, tmp_path: Path) -> None:
    """A block device, also behind a link as logical volumes are, is stored with its content and true size."""
    backing = content(tmp_path / "backing", size=9 * MIB)
    device = run(["losetup", "--find", "--show", str(backing)], timeout=60).stdout.strip()
    try:
        link = tmp_path / "volume"
        link.symlink_to(device)
        result = store(repository, "a", device, link, read_special=True)
    finally:
        run(["losetup", "--detach", device], timeout=60)
    assert result.files == {device: "A", str(link): "A"}
    items = {item.path: (item.type, item.size) for item in repository.items("a")}
    assert items == {device[1:]: ("-", 9 * MIB), str(link)[1:]: ("-", 9 * MIB)}
    with (tmp_path / "copy").open("wb") as copy:
        repository.extract_to("a", str(link)[1:], copy)
    assert (tmp_path / "copy").read_bytes() == backing.read_bytes()


def test_missing_source(repository: Repository, tmp_path: Path) -> None:
    """A path that is gone makes the archive incomplete and is named; the archive that borg kept can be deleted."""
    good, gone = content(tmp_path / "good", size=10), tmp_path / "gone"
    with pytest.raises(ArchiveIncomplete) as caught:
        store(repository, "a.unfinished", good, gone)
    assert str(gone) in caught.value.evidence
    assert caught.value.returncode == 107
    assert names(repository) == ["a.unfinished"]
    repository.delete(["a.unfinished"])
    assert names(repository) == []


def test_source_that_changes(repository: Repository, tmp_path: Path) -> None:
    """A file that is written to while it is read makes the archive incomplete."""
    image = content(tmp_path / "image", size=60 * MIB)
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.01):
            with image.open("r+b") as file:
                file.write(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(ArchiveIncomplete) as caught:
            store(repository, "a", image)
    finally:
        done.set()
        writer.join()
    assert str(image) in caught.value.evidence
    assert caught.value.returncode == 100


def test_unreadable_source(repository: Repository, tmp_path: Path) -> None:
    """What cannot be opened is told with the system's reason."""
    with pytest.raises(ArchiveIncomplete) as caught:
        store(repository, "a", content(tmp_path / "file" / "x", size=1), tmp_path / "file" / "x" / "y")
    assert "Not a directory" in caught.value.evidence


def test_comment(repository: Repository, tmp_path: Path) -> None:
    """Facts of every shape come back from a list without extraction; times are UTC."""
    facts = {"v": "1", "vm": "a b=c {now} {} %20 'ü' \"\n", "disks": "vda:1,vdb:2", "uncovered": ""}
    store(repository, "a", content(tmp_path / "x", size=1), comment=render_comment(facts))
    (archive,) = repository.archives()
    assert archive.comment == facts
    assert archive.time.utcoffset() is not None
    assert abs(archive.time.timestamp() - Path(repository.location, "config").stat().st_atime) < 3600


def test_attributes_stay_behind(repository: Repository, tmp_path: Path) -> None:
    """libvirt's notes on an image are not stored: plain borg must not bring them back either."""
    image = content(tmp_path / "image", size=10)
    os.setxattr(image, "trusted.libvirt.security.ref_dac", b"1")
    store(repository, "a", image)
    argv = [binary(), "extract", f"{repository.location}::a"]
    (tmp_path / "out").mkdir()
    env = {"BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(repository.target.base_dir)}
    run(argv, timeout=60, cwd=str(tmp_path / "out"), env=env)
    assert os.listxattr(tmp_path / "out" / str(image)[1:]) == []


def test_callers_environment_does_not_matter(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BORG_ variables of whoever calls us neither lead elsewhere nor open anything."""
    for variable, value in {
        "BORG_REPO": str(tmp_path / "elsewhere"),
        "BORG_PASSPHRASE": "wrong",
        "BORG_PASSCOMMAND": "false",
        "BORG_BASE_DIR": str(tmp_path / "elsewhere"),
        "BORG_CACHE_DIR": str(tmp_path / "elsewhere"),
        "BORG_KEYS_DIR": str(tmp_path / "elsewhere"),
        "BORG_FILES_CACHE_SUFFIX": "elsewhere",
        "BORG_LOGGING_CONF": str(tmp_path / "elsewhere"),
        "TZ": "Asia/Tokyo",
    }.items():
        monkeypatch.setenv(variable, value)
    store(repository, "a", content(tmp_path / "x", size=1))
    assert names(repository) == ["a"]
    assert not (tmp_path / "elsewhere").exists()


def test_passphrase_is_not_seen(repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While borg runs its passphrase is neither in its arguments nor in its environment, nor in our logs."""
    caplog.set_level("DEBUG")
    seen: list[bytes] = []

    def look(_: ArchiveProgress) -> None:
        pid = borg_child()
        seen.extend(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))

    store(repository, "a", content(tmp_path / "x", size=30 * MIB), on_progress=look)
    assert seen
    assert all(PASSPHRASE.encode() not in text for text in seen)
    assert PASSPHRASE not in caplog.text
    assert PASSPHRASE not in repr(repository.target)


def test_flood_of_lines(repository: Repository, tmp_path: Path) -> None:
    """Thousands of lines on both pipes neither block borg nor are lost."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number:05d}-{'x' * 100}").touch()
    result = store(repository, "a", folder)
    assert len(result.files) == 5000
    assert len(repository.items("a")) == 5001


def test_other_compression(make: RepositoryFactory, repository: Repository, tmp_path: Path) -> None:
    """The configured compression is used."""
    text = tmp_path / "text"
    text.write_text("all work and no play\n" * 400_000)
    plain = store(make(compression="none"), "a", text)
    assert repository.exists()
    text.write_text("all work and no joy!\n" * 400_000)
    packed = store(make(compression="zstd,3"), "b", text)
    assert packed.deduplicated_size * 20 < plain.deduplicated_size
