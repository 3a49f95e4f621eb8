"""Names as borg takes them, the list, the repository's own facts and its key."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.borg.client import Repository
from infra.borg.names import archive_glob, archive_name, parse_archive_name, unfinished, unfinished_glob
from tests.integration.borg.conftest import MIB, RepositoryFactory, content, names, store

pytestmark = pytest.mark.integration

UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
WHEN = datetime(2026, 11, 22, 21, 0, 5, tzinfo=UTC)
VMS = [
    "web",
    "web-2",
    "web@x",
    "-rf",
    "..",
    "a::b",
    "a b\tc",
    "{now} {{}} {",
    "%41%",
    "*[a-z]?",
    "ünïcode 東京 नमस्ते 🙂",
    "e\u0301 \u202e \u00a0",
    "'\"`$(id)\\",
    "x" * 211,
    " " * 70,
    "ü" * 211,
]


def test_every_name_is_taken(repository: Repository, tmp_path: Path) -> None:
    """borg creates, lists, renames and finds by glob the archives of VMs with any name, each apart from the others."""
    source = content(tmp_path / "x", size=1)
    for vm in VMS:
        name = archive_name(UUID, vm, WHEN)
        store(repository, unfinished(name), source)
        repository.rename(unfinished(name), name)
    found = [parse_archive_name(name) for name in names(repository)]
    assert [each.source for each in found if each is not None] == VMS
    for vm in ("web", "-rf", "*[a-z]?", "ünïcode 東京 नमस्ते 🙂"):
        (archive,) = repository.archives(archive_glob(UUID, vm))
        assert archive.name == archive_name(UUID, vm, WHEN)
    repository.delete([archive_name(UUID, vm, WHEN) for vm in VMS[:3]])
    assert len(names(repository)) == len(VMS) - 3


def test_unfinished_are_found(repository: Repository, tmp_path: Path) -> None:
    """What a dead run left is found by the VM's UUID, whatever its name was, and nothing else is."""
    source = content(tmp_path / "x", size=1)
    left = unfinished(archive_name(UUID, "old name", WHEN))
    for name in (left, archive_name(UUID, "web", WHEN), unfinished(archive_name("0" * 36, "web", WHEN))):
        store(repository, name, source)
    assert [archive.name for archive in repository.archives(unfinished_glob(UUID))] == [left]


def test_info(repository: Repository, tmp_path: Path) -> None:
    """Identity, encryption and the size of what is stored."""
    assert repository.info().stored < MIB
    store(repository, "a", content(tmp_path / "x", size=5 * MIB))
    info = repository.info()
    assert len(info.id) == 64
    assert info.encryption == "repokey"
    assert info.location == repository.location
    assert 5 * MIB <= info.stored < 6 * MIB
    assert info.modified.tzinfo is not None


def test_unique_size(repository: Repository, tmp_path: Path) -> None:
    """If asked for, an item tells what nothing else in the repository has."""
    one, two = content(tmp_path / "one", size=5 * MIB), content(tmp_path / "two", size=5 * MIB, seed=1)
    store(repository, "a", one)
    store(repository, "b", one, two)
    unique = {item.path: item.unique for item in repository.items("b", unique=True)}
    assert unique[str(one)[1:]] == 0
    assert unique[str(two)[1:]] in range(5 * MIB, 6 * MIB)
    assert {item.unique for item in repository.items("b")} == {None}


def test_key_export(repository: Repository, tmp_path: Path) -> None:
    """The exported key is borg's, readable by its owner alone, also over a file that others could read."""
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    repository.key_export(path)
    assert path.read_text().startswith(f"BORG_KEY {repository.info().id}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("encryption", ["repokey-blake2", "authenticated", "keyfile", "none"])
def test_modes_of_encryption(make: RepositoryFactory, encryption: str, tmp_path: Path) -> None:
    """Each kind of repository is made as configured and takes archives."""
    repository = make(encryption=encryption)
    repository.init()
    store(repository, "a", content(tmp_path / "x", size=10))
    assert names(repository) == ["a"]
    assert repository.info().encryption.startswith(encryption)


def test_state_is_private(repository: Repository) -> None:
    """borg's state below our folder is readable by root alone, and nothing is written to the caller's home."""
    repository.probe()
    assert stat.S_IMODE(repository.target.base_dir.stat().st_mode) == 0o700
    assert (repository.target.base_dir / ".config" / "borg").is_dir()
