"""A database's password is seen by nobody: not in a command line, not in a log, not in an error, not in a file."""

import threading
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import Maria, Postgres
from tests.integration.dumps.taking import store

pytestmark = pytest.mark.integration

PASSWORD = "pässword 'of the' \"database\" $1"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The file of the password."""
    path = tmp_path / "db-password"
    path.touch(mode=0o600)
    path.write_text(PASSWORD)
    return path


class _Watch:
    """Reads every command line of this machine, again and again."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.seen: set[str] = set()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            for process in psutil.process_iter(["cmdline"]):
                self.seen.add(" ".join(process.info["cmdline"] or []))


def test_passwords_appear_nowhere(place: Place, pg: Postgres, maria: Maria, secret: Path) -> None:
    """With passwords for both servers: none stands in a command line, output, manifest or file of the state."""
    place.api = ""  # Prefect's database is among the files that are looked at then
    quoted = PASSWORD.replace("'", "''")
    pg.psql("postgres", f"CREATE ROLE dumper SUPERUSER LOGIN PASSWORD '{quoted}'")
    maria.sql(f"CREATE USER dumper@localhost IDENTIFIED BY '{quoted}'; GRANT ALL ON *.* TO dumper@localhost")
    maria.sql("CREATE DATABASE app; USE app; CREATE TABLE t AS SELECT seq FROM seq_1_to_1000")
    sources = [{**pg.source, "user": "dumper"}, {**maria.source, "user": "dumper"}]
    passwords = {"postgresql": {"file": str(secret)}, "mariadb": {"file": str(secret)}}
    place.configure(sources, passwords=passwords)
    place.initialise()
    with _Watch() as watch:
        call = place.run("--verbose", "dumps", "pull", "db")
    assert call.code == 0, call.stderr
    assert any("mariadb-dump" in line for line in watch.seen)
    assert [line for line in watch.seen if PASSWORD in line] == []
    secret.write_text("wrong password of the database")
    failed = place.run("--verbose", "dumps", "pull", "db")
    assert failed.code == 3
    assert "Access denied" in failed.stderr
    for text in (call.stdout, call.stderr, failed.stdout, failed.stderr):
        assert PASSWORD not in text
        assert "wrong password of the database" not in text
    for path in place.state.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix not in {".sql", ".dump"}:
            content = path.read_bytes()
            assert PASSWORD.encode() not in content, path
            assert b"wrong password of the database" not in content, path


def test_the_state_of_dumps_is_for_root_alone(place: Place) -> None:
    """No other user can enter the folder of the dumps, and the pinned key is root's."""
    place.configure([{"kind": "command", "command": "echo secret rows"}])
    store(place)
    assert place.state.stat().st_mode & 0o077 == 0
    assert (place.state / "dumps" / "db").stat().st_mode & 0o077 == 0
    assert (place.state / "dumps" / "db" / "host_key").stat().st_mode & 0o077 == 0
    # What is extracted by hand one day is no more open.
    assert {path.stat().st_mode & 0o077 for path in place.latest.rglob("*")} == {0}
    assert (place.latest / "manifest.json").is_file()
