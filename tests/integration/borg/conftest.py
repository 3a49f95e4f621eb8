"""A repository for each test, copied from one that was made once, and content to store."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.borg.client import CreateResult, Repository
from infra.borg.command import binary

MIB = 1024**2
_BLOCK = 16 * MIB
PASSPHRASE = "correct horse ünd 'battery' $staple"

RepositoryFactory = Callable[..., Repository]
Storer = Callable[..., CreateResult]


def _repository(folder: Path, **changes: Any) -> Repository:
    settings: dict[str, Any] = {
        "name": "main",
        "location": str(folder / "repository"),
        "passphrase": PASSPHRASE,
        "encryption": "repokey",
        "compression": "lz4",
        "base_dir": folder / "state",
        "lock_wait": 1,
    }
    return Repository(**{**settings, **changes})


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty repository."""
    folder = tmp_path_factory.mktemp("template")
    _repository(folder).init()
    return folder / "repository"


@pytest.fixture
def make(tmp_path: Path) -> RepositoryFactory:
    """A client of the test's repository; settings may be changed by keyword."""
    return lambda **changes: _repository(tmp_path, **changes)


@pytest.fixture
def repository(tmp_path: Path, template: Path, make: RepositoryFactory) -> Repository:
    """A client of an empty repository that is there."""
    shutil.copytree(template, tmp_path / "repository")
    return make()


def content(path: Path, *, size: int, seed: int = 0) -> Path:
    """A file of so many bytes that do not compress, the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = random.Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(stream.randbytes(min(_BLOCK, size - start)))
    return path


def store(repository: Repository, archive: str, *paths: Path | str, **options: Any) -> CreateResult:
    """`Repository.create` with the options that no test cares about."""
    settings: dict[str, Any] = {"comment": "v=1", "files_cache_suffix": "test"}
    return repository.create(archive, [str(path) for path in paths], **{**settings, **options})


def names(repository: Repository) -> list[str]:
    """Every archive of the repository."""
    return [archive.name for archive in repository.archives()]


def borgs() -> list[int]:
    """The borgs that this process has started and that still run."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return [pid for pid in found if binary().encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]


def borg_child() -> int:
    """The borg that runs now."""
    running = borgs()
    assert running, "no borg runs"
    return running[0]


def lock_files(repository: Repository) -> list[str]:
    """What is left of locks in the repository and in borg's cache."""
    roots = [Path(repository.location), repository.target.base_dir]
    return [str(path) for root in roots for path in root.rglob("lock*") if os.path.lexists(path)]
