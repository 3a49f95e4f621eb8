"""What the tests of dumps share: a folder that every server's user may enter, the servers, an installation."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import Maria, Postgres, Sshd, mariadb, postgres, sshd


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for one file of tests that other users may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="vmborg-dumps-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def ssh(folder: Path) -> Iterator[Sshd]:
    """An SSH server."""
    with sshd(folder / "sshd") as found:
        yield found


@pytest.fixture(scope="module")
def pg(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with postgres(folder / "postgres") as found:
        yield found


@pytest.fixture(scope="module")
def maria(folder: Path) -> Iterator[Maria]:
    """A MariaDB server."""
    with mariadb(folder / "mariadb") as found:
        yield found


@pytest.fixture
def place(tmp_path: Path, ssh: Sshd, prefect_server: str) -> Place:
    """An installation with an empty repository that trusts the SSH server; its runs are in a Prefect server."""
    return Place.make(tmp_path, ssh, api=prefect_server)
