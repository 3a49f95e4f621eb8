"""What goes wrong on a dump host, for real: a typed error, the last good dump untouched, nothing partial stored."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from infra.dumps.manifest import DumpedSource
from infra.dumps.source import Role
from infra.errors import ArchiveIncomplete
from infra.process import run
from tasks.dumps.restore import checked_file, open_archive
from tasks.job import load_config
from tests.guests import wait_for
from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import Maria, Postgres, Sshd, postgres, sshd
from tests.integration.dumps.taking import store, take

pytestmark = pytest.mark.integration

WRAPPER = """\
#!/bin/sh
# Behaves as the file `mode` says, else as the real program.
set -- {program} "$@"
case "$2,$(cat {mode})" in
--version,* | *,well) exec "$@" ;;
*,truncate) "$@" | head -c -3000 ;;
*,empty) exit 0 ;;
*,small) "$@" | head -c 1 ;;
*,killed) "$@" | head -c 3000; kill -9 $$ ;;
*,drop) psql -Xqd postgres -c 'DROP DATABASE "going"'; exec "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def mode(folder: Path) -> Path:
    """How the dump programs of the host behave."""
    return folder / "mode"


@pytest.fixture(scope="module")
def ssh(folder: Path, mode: Path) -> Iterator[Sshd]:
    """An SSH server whose sessions find our wrappers first."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("pg_dump", "mariadb-dump"):
        wrapper = programs / name
        wrapper.write_text(WRAPPER.format(program=f"/usr/bin/{name}", mode=mode))
        wrapper.chmod(0o755)
    with sshd(folder / "sshd", options=[f"SetEnv PATH={programs}:/usr/bin:/bin"]) as found:
        yield found


@pytest.fixture(autouse=True)
def _well_behaved(mode: Path) -> None:
    mode.write_text("well")


@pytest.fixture
def app(pg: Postgres) -> Postgres:
    """A server with a database `app`."""
    pg.psql("postgres", "DROP DATABASE IF EXISTS app")
    pg.psql("postgres", "DROP DATABASE IF EXISTS going")
    pg.create("app")
    pg.psql("app", "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i")
    return pg


def only(source: DumpedSource) -> str:
    """The one failure of a source."""
    assert len(source.failures) == 1, source
    return source.failures[0].error


def test_a_server_killed_in_the_middle_keeps_the_last_good_dump(place: Place, folder: Path) -> None:
    """A server that dies in mid-dump makes the pull partial (exit 3): the last good dump stays, marked stale."""
    with postgres(folder / "mortal") as pg:
        pg.create("app")
        pg.psql("app", "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 100000) i")
        place.configure([{**pg.source, "databases": ["app"]}, {"kind": "command", "command": "date +%N"}])
        good = place.pull()
        before = place.manifest().sources[0].dumps
        with ThreadPoolExecutor(1) as pool:
            pulling = pool.submit(place.run, "--json", "dumps", "pull", "db")
            dumper = wait_for(lambda: _dumping(place, 1_000_000), timeout=180, what="pg_dump", interval=0.002)
            pg.kill()
            dumper.resume()
            call = pulling.result()
    assert call.code == 3, call.stderr
    entry = call.document["pulls"][0]
    assert entry["state"] == "partial"
    after = place.manifest().sources[0]
    kept = after.dumps[1]
    assert (kept.database, kept.sha256, kept.taken) == ("app", before[1].sha256, before[1].taken)
    assert kept.stale
    assert "pg_dump" in kept.error
    assert (place.latest / kept.path).stat().st_size == kept.size
    stored = place.stored(entry["result"]["archive"])
    assert [dump.stale for dump in stored.sources[0].dumps] == [False, True]
    assert [dump.stale for dump in stored.sources[1].dumps] == [False]
    assert place.archives() == [good["result"]["archive"], entry["result"]["archive"]]
    listed = place.run("--json", "dumps", "list", "db").document["archives"]
    assert [(each["good"], each["bad"]) for each in listed] == [(True, []), (False, ["postgresql"])]


def _dumping(place: Place, size: int) -> psutil.Process | None:
    """The pg_dump that has sent more than so many bytes, stopped; None if there is none yet."""
    making = sum(path.stat().st_size for path in (place.state / "dumps" / "db").glob("tree.*.making/dumps/*/*.dump"))
    if making < size:
        return None
    found = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "pg_dump" and _below(place, each)]
    for process in found:
        process.suspend()
    return found[0] if found else None


def _below(place: Place, process: psutil.Process) -> bool:
    return place.ssh.child is not None and place.ssh.child.pid in [each.pid for each in process.parents()]


@pytest.mark.parametrize(
    "case",
    [
        ("truncate", "is not whole"),
        ("empty", "is empty"),
        ("killed", "was killed"),
        ("small", "is much smaller than the last one"),
        ("drop", "does not exist"),
    ],
)
def test_a_bad_dump_is_never_kept(place: Place, app: Postgres, mode: Path, case: tuple[str, str]) -> None:
    """Cut off, empty, killed, shrunken, or its database dropped in between: refused, and the last good one stays."""
    how, said = case
    app.create("going")
    place.configure([{**app.source, "globals": False, "databases": ["going" if how == "drop" else "app"]}])
    (first,) = take(place)
    mode.write_text(how)
    (second,) = take(place)
    assert said in only(second)
    assert [(dump.sha256, dump.stale) for dump in second.dumps] == [(dump.sha256, True) for dump in first.dumps]
    mode.write_text("well")
    if how != "drop":
        (third,) = take(place)
        assert third.good


def test_sql_that_ends_early_is_refused(place: Place, maria: Maria, mode: Path) -> None:
    """A dump of MariaDB without its last line is refused although the exit code is 0, and no tree is made of it."""
    maria.sql("CREATE DATABASE IF NOT EXISTS cut; CREATE TABLE IF NOT EXISTS cut.t (i int)")
    place.configure([{**maria.source, "databases": ["cut"], "globals": False}])
    mode.write_text("small")
    (source,) = take(place)
    assert "does not end as mysqldump ends one" in only(source)
    assert source.dumps == ()
    assert not place.latest.exists()


def test_a_smaller_database_is_believed_when_somebody_says_so(place: Place, app: Postgres) -> None:
    """A database that shrank is refused once and taken with --accept-smaller."""
    place.configure([{**app.source, "databases": ["app"], "globals": False}])
    take(place)
    app.psql("app", "TRUNCATE t")
    assert "--accept-smaller" in only(take(place)[0])
    (believed,) = take(place, accept_smaller=True)
    assert believed.good


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("no-such-program --dump", 127, "not found"),
        ("echo partial; echo why >&2; exit 7", 7, "why"),
        ("echo partial; kill -9 $$", -1, "was killed"),
        ("true", None, "no byte"),
        ("echo whole", None, "THE END"),
    ],
)
def test_a_bad_command_is_told(place: Place, command: str, code: int | None, said: str) -> None:
    """Missing, failing, killed, silent, without its end: each is told with its exit code, and nothing of it is kept."""
    place.configure([{"kind": "command", "command": command, "ends_with": "THE END"}])
    (source,) = take(place)
    assert said in only(source)
    assert source.failures[0].exit_code == code
    assert not place.latest.exists()


def test_a_repository_that_is_missing_is_found_out_first(place: Place) -> None:
    """A pull for a repository that does not open fails before any command runs on the dump host."""
    marker = place.root / "it ran"
    place.configure([{"kind": "command", "command": f"touch '{marker}'; echo whole"}])
    call = place.run("--json", "dumps", "pull", "db")
    assert (call.code, call.document["pulls"][0]["error"]["type"]) == (1, "RepositoryNotFound")
    assert not marker.exists()
    assert not place.latest.exists()


def test_files_that_may_not_be_read_are_told_in_a_few_lines(place: Place) -> None:
    """Of many files that fail the first five are named and the rest counted; the manifest has each of them."""
    folder = place.root / "many"
    folder.mkdir()
    place.configure([{"kind": "files", "paths": [str(folder / str(number)) for number in range(9)]}])
    (source,) = take(place)
    assert len(source.failures) == 9
    assert len(source.problems) == 6
    assert "and 4 more" in source.problems[-1]


def test_a_full_disk_is_told_and_leaves_the_last_dump(place: Place) -> None:
    """A file system that fills up while a dump comes is NoSpace; the last good dump stays and is marked stale."""
    place.configure([{"kind": "command", "command": "echo small", "floor": 0}])
    mount = place.state / "dumps" / "db"
    key = (mount / "host_key").read_text()
    run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)], timeout=10)
    try:
        (mount / "host_key").write_text(key)
        take(place)
        place.configure([{"kind": "command", "command": "head -c 20000000 /dev/zero"}])
        (source,) = take(place)
        assert "no room left" in only(source)
        assert [dump.stale for dump in source.dumps] == [True]
        assert (place.latest / "command.dump").read_text() == "small\n"
    finally:
        run(["umount", str(mount)], timeout=10)


def test_what_comes_out_of_an_archive_is_compared(place: Place, tmp_path: Path) -> None:
    """A dump whose checksum is not the manifest's is not restored, and leaves no file."""
    place.configure([{"kind": "command", "command": "echo whole"}])
    store(place)
    opened = open_archive(load_config(str(place.config)), "db", None)
    dump = opened.manifest.sources[0].dumps[0]
    assert dump.role is Role.DUMP
    wrong = dump.model_copy(update={"sha256": "0" * 64})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ArchiveIncomplete, match="not what was dumped"), checked_file(opened, wrong, tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_errors_have_three_voices(place: Place) -> None:
    """What a pull says on stderr names what failed, the evidence and what to do."""
    place.configure([{"kind": "command", "command": "echo the reason >&2; exit 3"}])
    place.initialise()
    call = place.run("dumps", "pull", "db")
    assert call.code == 1
    assert "the reason" in call.stderr
    assert "What to do:" in call.stderr
