"""PostgreSQL and MariaDB while they are written to: pulled, restored into fresh databases, compared."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from tasks.dumps.restore import Login, find_dump, open_archive, restore_into
from tasks.job import load_config
from tests.guests import wait_for
from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import Maria, Postgres
from tests.integration.dumps.taking import store

pytestmark = pytest.mark.integration

INSERT = "INSERT INTO log VALUES ({}, {})"
_BETWEEN_S = 0.02  # without a pause the writers, a process each time, would take the processors from the pull
ODD = ["../$HOME `id`' \"x", "back\\slash ünï=", "-dash; a=b"]


@contextmanager
def writing(write: Callable[[int], object], done: Callable[[], int]) -> Generator[None]:
    """Write all the time while the block runs, from before its beginning to after its end."""
    over = threading.Event()

    def loop() -> None:
        number = 0
        while not over.wait(_BETWEEN_S):
            number += 1
            write(number)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        wait_for(lambda: done() > 0, timeout=30, what="the first write")
        before = done()
        yield
        wait_for(lambda: done() > before, timeout=30, what="a write after the dump began")
    finally:
        over.set()
        thread.join()


def test_both_servers_under_writes_come_back_the_same(place: Place, pg: Postgres, maria: Maria) -> None:
    """A pull of both servers while they are written to restores into fresh databases with identical checksums."""
    pg.psql("postgres", "DROP DATABASE IF EXISTS shop")
    pg.create("shop")
    pg.psql("shop", "CREATE TABLE still AS SELECT i, md5(i::text) AS t FROM generate_series(1, 200000) i")
    pg.psql("shop", "CREATE TABLE log (i int PRIMARY KEY, twice int)")
    maria.sql("DROP DATABASE IF EXISTS shop; CREATE DATABASE shop")
    maria.sql(
        "CREATE TABLE still AS SELECT seq AS i, md5(seq) AS t FROM seq_1_to_200000;"
        "CREATE TABLE log (i int PRIMARY KEY, twice int) ENGINE=InnoDB;"
        "CREATE PROCEDURE p() SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 YEAR DO SELECT 1;"
        "CREATE TRIGGER t BEFORE INSERT ON still FOR EACH ROW SET NEW.i = NEW.i;",
        "shop",
    )
    place.configure([pg.source, maria.source])
    with (
        writing(
            lambda number: pg.psql("shop", INSERT.format(number, 2 * number)),
            lambda: int(pg.psql("shop", "SELECT count(*) FROM log")),
        ),
        writing(
            lambda number: maria.sql(INSERT.format(number, 2 * number), "shop"),
            lambda: int(maria.sql("SELECT count(*) FROM log", "shop")),
        ),
    ):
        entry = place.pull()
    assert entry["state"] == "complete"
    for source in ("postgresql", "mariadb"):
        call = place.run("dumps", "restore", "db", source, "--database", "shop", "--into", "--as", "fresh", "--yes")
        assert call.code == 0, call.stderr

    still = "SELECT md5(string_agg(i || t, ',' ORDER BY i)) FROM still"
    assert pg.psql("fresh", still) == pg.psql("shop", still)
    assert maria.sql("CHECKSUM TABLE still", "fresh").split()[1] == maria.sql("CHECKSUM TABLE still", "shop").split()[1]
    # The log is of one instant: nothing is missing before its last row, and every row is whole.
    whole = "SELECT count(*) > 0 AND count(*) = max(i) AND bool_and(twice = 2 * i) FROM log"
    assert pg.psql("fresh", whole) == "t"
    assert maria.sql("SELECT count(*) > 0 AND count(*) = max(i) AND min(twice = 2 * i) FROM log", "fresh") == "1"
    assert maria.sql("SHOW PROCEDURE STATUS WHERE Db = 'fresh'").count("fresh") == 1
    assert maria.sql("SHOW EVENTS FROM fresh").count("fresh") == 1
    assert maria.sql("SHOW TRIGGERS FROM fresh").startswith("t\t")


def test_odd_names_are_dumped_and_restored(place: Place, pg: Postgres, maria: Maria) -> None:
    """Names with blanks, quotes, other scripts, slashes and what looks like code are dumped and restored as such."""
    for name in ODD:
        pg.create(name)
        pg.psql(name, "CREATE TABLE t AS SELECT current_database() AS name")
        maria.create(name)
        maria.sql("CREATE TABLE t AS SELECT database() AS name", name)
    place.configure([pg.source, maria.source])
    store(place)
    manifest = place.manifest()
    for label in ("postgresql", "mariadb"):
        source = manifest.source(label)
        assert source is not None
        assert {dump.database for dump in source.dumps} >= set(ODD)
    inside = place.latest.resolve()
    assert all((inside / dump.path).resolve().is_relative_to(inside) for dump in manifest.sources[0].dumps)
    config = load_config(str(place.config))
    opened, host = open_archive(config, "db", None), config.dumps.hosts["db"]
    for name in ODD:
        for source in host.sources:
            dump = find_dump(opened, source.label, name, users=False)
            renamed = dump.model_copy(update={"database": f"copy of {name}"})
            restore_into(config, opened, renamed, host="db", source=source, login=Login())
        assert pg.psql(f"copy of {name}", "SELECT name FROM t") == name
        assert maria.sql("SELECT name FROM t", f"copy of {name}").replace("\\\\", "\\") == name
