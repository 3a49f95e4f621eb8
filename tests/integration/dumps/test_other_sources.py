"""SQLite, Redis, commands and files: pulled from real ones, brought back, compared."""

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.guests import wait_for
from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import redis
from tests.integration.dumps.taking import store, take

pytestmark = pytest.mark.integration

REDIS_PASSWORD = "a 'password' of redis $x"


def test_sqlite_is_copied_while_it_is_written_to(place: Place, tmp_path: Path) -> None:
    """A database with an open writer in WAL mode is copied consistently, and restored into while it is open."""
    path = tmp_path / "it's a db.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (i); INSERT INTO t VALUES (1), (2);")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO t VALUES (3)")
        place.configure([{"kind": "sqlite", "name": "grafana", "path": str(path)}])
        store(place)
        writer.commit()
        with closing(sqlite3.connect(place.latest / "grafana.sqlite")) as copy:
            assert copy.execute("SELECT count(*) FROM t").fetchone() == (2,)
        writer.execute("DELETE FROM t")
        writer.commit()
        call = place.run("dumps", "restore", "db", "grafana", "--into", "--yes")
        assert call.code == 0, call.stderr
        assert writer.execute("SELECT count(*) FROM t").fetchone() == (2,)
    assert [each.name for each in Path("/tmp").glob("vmborg.????????")] == []


def test_sqlite_that_is_missing_or_damaged_is_refused(place: Place, tmp_path: Path) -> None:
    """A path without a database makes none there; a damaged database fails its check."""
    place.configure([{"kind": "sqlite", "path": str(tmp_path / "none.sqlite")}])
    (source,) = take(place)
    assert "no such file" in source.failures[0].error
    assert not (tmp_path / "none.sqlite").exists()
    path = tmp_path / "damaged.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE t (i); CREATE INDEX x ON t (i);")
        database.executemany("INSERT INTO t VALUES (?)", [(str(number),) for number in range(5000)])
        database.commit()
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)
    place.configure([{"kind": "sqlite", "path": str(path)}])
    (source,) = take(place)
    assert len(source.failures) == 1
    assert not place.latest.exists()


def test_redis_comes_back_from_its_rdb_file(place: Place, folder: Path, tmp_path: Path) -> None:
    """A Redis server with a password is dumped with a right checksum; a server that loads the file has every key."""
    secret = tmp_path / "redis-password"
    secret.touch(mode=0o600)
    secret.write_text(REDIS_PASSWORD)
    password = secret.read_text()
    with redis(folder / "redis", password) as server:
        for start in range(0, 3000, 500):
            server.cli("MSET", *(word for n in range(start, start + 500) for word in (f"key {n}", str(n) * 9)))
        server.cli("SET", "ünï", "code")
        place.configure([server.source], passwords={"redis": {"file": str(secret)}})
        store(place)
        keys = server.cli("DBSIZE").stdout
        secret.write_text("wrong")
        (source,) = take(place)
        assert [dump.stale for dump in source.dumps] == [True]
    with redis(folder / "redis2", password, rdb=place.latest / "redis.rdb") as copy:
        assert copy.cli("DBSIZE").stdout == keys
        assert copy.cli("GET", "ünï").stdout == "code\n"


def test_what_has_no_safe_way_back_is_refused(place: Place, tree: Path) -> None:
    """Redis, files and a command without `restore` are not restored into a host: exit 2, and how it is done instead."""
    place.configure(
        [{"kind": "redis"}, {"kind": "files", "paths": [str(tree)]}, {"kind": "command", "command": "echo x"}]
    )
    for source, remedy in (("redis", "dump.rdb"), ("files", "rsync"), ("command", "`restore`")):
        call = place.run("--json", "dumps", "restore", "db", source, "--into", "--yes")
        assert (call.code, call.document["error"]["type"]) == (2, "UsageError")
        assert "--to F" in call.document["error"]["remedy"]
        assert remedy in call.document["error"]["remedy"]


def test_a_command_goes_both_ways(place: Place, tmp_path: Path) -> None:
    """A command's output is restored to a file, and through its `restore` command; an existing file is not replaced."""
    back, target = tmp_path / "back", tmp_path / "to"
    place.configure(
        [{"kind": "command", "name": "etcd", "command": "printf 'a\\0b\\nEND'", "restore": f"cat > {back}"}]
    )
    archive = store(place)
    assert place.run("dumps", "restore", "db", "etcd", "--to", target).code == 0
    assert place.run("dumps", "restore", "db", "etcd", "--into", "--yes").code == 0
    assert target.read_bytes() == back.read_bytes() == b"a\0b\nEND"
    again = place.run("--json", "dumps", "restore", "db", "etcd", "--to", target)
    assert (again.code, again.document["error"]["type"]) == (1, "TargetExists")
    unasked = place.run("dumps", "restore", "db", "etcd", "--into")
    assert unasked.code == 1
    shown = place.run("--json", "dumps", "list", "db", "--archive", archive).document
    assert shown["sources"][0]["source"] == "etcd"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of every kind on the dump host."""
    root = tmp_path / "etc"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "ünï co\nde").write_text("content")
    (root / "empty").touch()
    (root / "big").write_bytes(os.urandom(3_000_000))
    (root / "link").symlink_to("/etc/shadow")
    (root / "secret").touch(mode=0o640)
    os.mkfifo(root / "fifo")
    old = 1_700_000_000
    for path in (root / "big", root / "empty", root / "deep" / "er" / "ünï co\nde", root / "secret"):
        os.utime(path, (old, old))
    return root


def test_files_are_fetched_once(place: Place, tree: Path) -> None:
    """Files keep content, mode and time; links stay links; what did not change is not fetched and stored again."""
    place.configure([{"kind": "files", "name": "conf", "paths": [str(tree)], "exclude": ["*/deep/*x"]}])
    (first,) = take(place)
    here = place.latest / "conf" / str(tree).lstrip("/")
    assert (here / "big").read_bytes() == (tree / "big").read_bytes()
    assert (here / "deep" / "er" / "ünï co\nde").read_text() == "content"
    assert str((here / "link").readlink()) == "/etc/shadow"
    assert stat.S_IMODE((here / "secret").stat().st_mode) == 0o640
    assert (here / "big").stat().st_mtime == 1_700_000_000
    assert (len(first.dumps), first.skipped, first.failures) == (4, 1, ())
    inode = (here / "big").stat().st_ino
    (tree / "secret").write_text("new")
    (tree / "empty").unlink()
    (second,) = take(place)
    assert (here / "big").stat().st_ino == inode
    assert (here / "secret").read_text() == "new"
    assert {Path(dump.path).name for dump in second.dumps} == {"big", "secret", "ünï co\nde"}
    assert second.good


def test_files_come_back_and_missing_ones_are_told(place: Place, tree: Path, tmp_path: Path) -> None:
    """An archive's files are restored into a new folder; a path that is gone keeps its last files, marked stale."""
    place.configure([{"kind": "files", "name": "conf", "paths": [str(tree)]}])
    store(place)
    target = tmp_path / "restored"
    call = place.run("dumps", "restore", "db", "conf", "--to", target)
    assert call.code == 0, call.stderr
    back = target / str(tree).lstrip("/")
    assert (back / "big").read_bytes() == (tree / "big").read_bytes()
    assert str((back / "link").readlink()) == "/etc/shadow"
    shutil.rmtree(tree)
    (source,) = take(place)
    assert "No such file" in source.failures[0].error
    assert {dump.stale for dump in source.dumps} == {True}
    assert len(source.dumps) == 4


def test_a_change_in_several_places_costs_little(place: Place, tmp_path: Path) -> None:
    """Of a dump of 16 MB in which eight places changed and one grew, less than a quarter is stored again."""
    dump = tmp_path / "dump"
    dump.write_bytes(os.urandom(16_000_000))
    place.configure([{"kind": "command", "command": f"cat '{dump}'"}])
    first = store(place)
    content = bytearray(dump.read_bytes())
    for start in range(1_000_000, 16_000_000, 2_000_000):
        content[start : start + 8] = b"changed!"
    content[5_000_000:5_000_000] = b"a row more"
    dump.write_bytes(content)
    before = place.repository.info().stored
    wait_for(lambda: store(place) != first, timeout=20, what="an archive of another second")
    assert place.repository.info().stored - before < 4_000_000


def test_what_was_stored_is_what_was_dumped(place: Place, tree: Path) -> None:
    """borg stores the tree under `dumps/`, and a second archive of unchanged files stores next to nothing."""
    place.configure([{"kind": "files", "name": "conf", "paths": [str(tree)]}])
    first = store(place)
    items = {item.path: item.size for item in place.repository.items(first)}
    assert items[f"dumps/conf/{str(tree).lstrip('/')}/big"] == 3_000_000
    assert "dumps/manifest.json" in items
    before = place.repository.info().stored
    wait_for(lambda: store(place) != first, timeout=20, what="an archive of another second")
    assert place.repository.info().stored - before < 100_000
