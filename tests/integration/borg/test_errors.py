"""Each way in which a repository is of no use, provoked for real: a typed error that names cause and remedy."""

import configparser
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.borg.client import Repository
from infra.borg.command import binary, environment
from infra.errors import (
    ArchiveExists,
    ArchiveNotFound,
    BorgError,
    PassphraseWrong,
    RepositoryDamaged,
    RepositoryExists,
    RepositoryFull,
    RepositoryInvalid,
    RepositoryLocked,
    RepositoryNotFound,
    RepositoryUnreachable,
)
from infra.process import run, spawn
from tests.integration.borg.conftest import MIB, PASSPHRASE, RepositoryFactory, content, lock_files, names, store

pytestmark = pytest.mark.integration


def provoke(error: type[BorgError], call: Callable[[], object]) -> BorgError:
    """The error that `call` raises; it has all three voices."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert caught.value.brief
    assert "borg" in caught.value.evidence
    assert caught.value.remedy
    return caught.value


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small file system."""
    folder.mkdir()
    run(["mount", "-t", "tmpfs", *options, "none", str(folder)], timeout=60)
    try:
        yield folder
    finally:
        run(["umount", str(folder)], timeout=60)


def test_missing_repository(make: RepositoryFactory, tmp_path: Path) -> None:
    """Where no repository is, every call says so, and `exists` is False."""
    repository = make()
    for call in (repository.probe, repository.archives, repository.info):
        error = provoke(RepositoryNotFound, call)
        assert repository.location in error.brief
        assert "vmborg init" in error.remedy
    provoke(RepositoryNotFound, lambda: store(repository, "a", content(tmp_path / "x", size=1)))
    assert not repository.exists()


def test_wrong_passphrase(repository: Repository, make: RepositoryFactory, tmp_path: Path) -> None:
    """A wrong passphrase is told by the first call, and is in no voice of the error."""
    wrong = make(passphrase="wrong guess")
    for call in (wrong.probe, wrong.archives, wrong.info, wrong.exists):
        error = provoke(PassphraseWrong, call)
        assert "wrong guess" not in str(error)
    provoke(PassphraseWrong, lambda: store(wrong, "a", content(tmp_path / "x", size=1)))
    assert names(repository) == []


def test_no_passphrase(repository: Repository, make: RepositoryFactory) -> None:
    """Without a passphrase an encrypted repository stays closed."""
    assert repository.exists()
    provoke(PassphraseWrong, make(passphrase=None, encryption="none").probe)


def test_locked_repository(repository: Repository) -> None:
    """While another borg holds the lock, calls end soon, name the lock and its holder, and may be tried again."""
    argv = [binary(), "with-lock", repository.location, "sleep", "300"]
    with spawn(argv, env=environment(repository.target), secrets={"BORG_PASSPHRASE_FD": PASSPHRASE}) as holder:
        _wait_for(lambda: Path(repository.location, "lock.exclusive").exists())
        begun = time.monotonic()
        error = provoke(RepositoryLocked, repository.archives)
        assert time.monotonic() - begun < 15
        assert error.transient
        assert "lock.exclusive" in error.evidence
        assert str(holder.pid) in error.evidence
        assert "break-lock" in error.remedy
    assert names(repository) == []


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_garbage_is_no_repository(make: RepositoryFactory) -> None:
    """A directory with something else, and an empty one, are not repositories and stay as they are."""
    repository = make()
    folder = Path(repository.location)
    folder.mkdir()
    assert "mounted" in provoke(RepositoryNotFound, repository.probe).remedy
    (folder / "config").write_bytes(b"\x00\xff garbage")
    provoke(RepositoryInvalid, repository.probe)
    (folder / "config").write_text("[repository]\nversion = 1\n")
    provoke(RepositoryInvalid, repository.probe)
    assert [path.name for path in folder.iterdir()] == ["config"]


def test_other_version(repository: Repository) -> None:
    """A repository of a version that this borg does not know is refused."""
    path = Path(repository.location, "config")
    config = configparser.ConfigParser(interpolation=None)
    config.read(path)
    config["repository"]["version"] = "9"
    with path.open("w") as file:
        config.write(file)
    provoke(RepositoryInvalid, repository.probe)


def test_file_instead_of_repository(make: RepositoryFactory) -> None:
    """A file where the repository should be is no repository."""
    repository = make()
    Path(repository.location).write_text("x")
    provoke(RepositoryInvalid, repository.probe)


def test_read_only_file_system(repository: Repository, make: RepositoryFactory, tmp_path: Path) -> None:
    """A repository that cannot be written to is of no use but to a reader; else its rights are named."""
    with mounted(tmp_path / "small") as folder:
        shutil.copytree(repository.location, folder / "repository")
        run(["mount", "-o", "remount,ro", str(folder)], timeout=60)
        moved = make(location=str(folder / "repository"))
        error = provoke(RepositoryInvalid, moved.probe)
        assert "rights" in error.brief or "written" in error.brief
        provoke(RepositoryInvalid, moved.archives)  # by which a backup proves it before it touches a guest
        provoke(RepositoryInvalid, lambda: store(moved, "a", content(tmp_path / "x", size=1)))
        moved.only_reads = True
        assert moved.archives() == []


def test_full_file_system(repository: Repository, make: RepositoryFactory, tmp_path: Path) -> None:
    """A full file system ends the copy with its own words; no archive and no lock is left."""
    with mounted(tmp_path / "small", "-o", "size=24m") as folder:
        shutil.copytree(repository.location, folder / "repository")
        small = make(location=str(folder / "repository"))
        store(small, "good", content(tmp_path / "x", size=MIB))
        big = content(tmp_path / "big", size=40 * MIB, seed=1)
        error = provoke(RepositoryFull, lambda: store(small, "bad.unfinished", big))
        assert "No space left on device" in error.evidence
        assert len(error.evidence.splitlines()) < 25
        assert lock_files(small) == []
        assert names(small) == ["good"]


def test_quota(repository: Repository, tmp_path: Path) -> None:
    """A storage quota is a full repository too."""
    argv = [binary(), "config", repository.location, "storage_quota", "10M"]
    run(argv, timeout=60, env=environment(repository.target))
    provoke(RepositoryFull, lambda: store(repository, "a.unfinished", content(tmp_path / "x", size=20 * MIB)))
    assert names(repository) == []


def test_relocated_repository(repository: Repository, make: RepositoryFactory, tmp_path: Path) -> None:
    """A known repository at another place is a question to a person, not an answer by us."""
    repository.probe()
    moved = make(location=str(tmp_path / "elsewhere"))
    Path(repository.location).rename(moved.location)
    error = provoke(RepositoryInvalid, moved.probe)
    assert f"borg info {moved.location}" in error.remedy


def test_swapped_for_an_unencrypted_one(repository: Repository, make: RepositoryFactory) -> None:
    """Where an encrypted repository was, an unencrypted one gets no data of ours."""
    repository.probe()
    shutil.rmtree(repository.location)
    argv = [binary(), "init", "--encryption", "none", repository.location]
    stranger = environment(make(base_dir=repository.target.base_dir / "stranger").target)
    run(argv, timeout=60, env=stranger)
    provoke(RepositoryInvalid, repository.probe)


def test_unencrypted_as_configured(make: RepositoryFactory, tmp_path: Path) -> None:
    """A repository that the configuration calls unencrypted is used without a question, also on a new host."""
    repository = make(encryption="none", passphrase=None)
    repository.init()
    fresh = make(encryption="none", passphrase=None, base_dir=tmp_path / "new-host")
    assert fresh.info().encryption == "none"


@pytest.mark.parametrize("rsh", ["false", "sh -c 'echo remote: no borg here >&2; exit 127'"])
def test_no_connection(make: RepositoryFactory, rsh: str) -> None:
    """A remote side that does not answer is told with what it said, and may be tried again."""
    error = provoke(RepositoryUnreachable, make(location="ssh://backup.invalid/srv/borg", rsh=rsh).probe)
    assert error.transient


def test_damaged_segment(repository: Repository, tmp_path: Path) -> None:
    """A flipped byte in the repository is damage, not a missing file."""
    store(repository, "a", content(tmp_path / "x", size=5 * MIB))
    segment = max(Path(repository.location, "data").rglob("*"), key=lambda path: path.stat().st_size)
    with segment.open("r+b") as file:
        file.seek(2 * MIB)
        byte = file.read(1)
        file.seek(2 * MIB)
        file.write(bytes([byte[0] ^ 0xFF]))
    (tmp_path / "out").mkdir()
    provoke(RepositoryDamaged, lambda: repository.extract("a", [], tmp_path / "out"))


def test_init_over_something(repository: Repository, make: RepositoryFactory, tmp_path: Path) -> None:
    """A repository, or any directory with something in it, is not initialised over."""
    provoke(RepositoryExists, repository.init)
    content(tmp_path / "full" / "letter", size=10)
    provoke(RepositoryExists, make(location=str(tmp_path / "full")).init)
    assert os.listdir(tmp_path / "full") == ["letter"]  # noqa: PTH208 - names are what is compared


def test_init_makes_parents(make: RepositoryFactory, tmp_path: Path) -> None:
    """Parent directories are made with it."""
    deep = make(location=str(tmp_path / "a" / "b" / "repository"))
    assert not deep.exists()
    deep.init()
    assert deep.exists()


def test_archive_there_or_not(repository: Repository, tmp_path: Path) -> None:
    """An archive that is not there, or there already, is told by its own error in every call."""
    source = content(tmp_path / "x", size=10)
    store(repository, "a", source)
    store(repository, "b", source)
    provoke(ArchiveExists, lambda: store(repository, "a", source))
    provoke(ArchiveExists, lambda: repository.rename("a", "b"))
    provoke(ArchiveNotFound, lambda: repository.rename("c", "d"))
    provoke(ArchiveNotFound, lambda: repository.items("c"))
    provoke(ArchiveNotFound, lambda: repository.extract("c", [], tmp_path))
    provoke(ArchiveNotFound, lambda: repository.delete(["c"]))
    assert names(repository) == ["a", "b"]
    repository.delete(["a", "b"])
    assert names(repository) == []


def test_deleting_nothing_deletes_nothing(repository: Repository, tmp_path: Path) -> None:
    """An empty list of archives is not taken for the whole repository."""
    store(repository, "a", content(tmp_path / "x", size=10))
    repository.delete([])
    assert names(repository) == ["a"]
