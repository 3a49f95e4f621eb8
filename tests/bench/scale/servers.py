"""A Prefect server as a unit of ours starts it, with SQLite and with PostgreSQL."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.held import descendants
from tests.e2e.prefect_server import PrefectServer
from tests.e2e.units import unit_environment
from tests.integration.dumps.servers import Postgres, postgres


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs, and how big its database is."""

    api: str
    log: Path
    pids: Callable[[], list[int]]
    size: Callable[[], int]


def _server(root: Path, database: str) -> PrefectServer:
    home = root / "server"
    home.mkdir()
    settings = {
        **unit_environment("vmborg-server.service"),
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",  # the Dashboard of the tests has no token
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": None,
    }
    return PrefectServer(home, settings)


@contextmanager
def sqlite_server(root: Path) -> Generator[Server]:
    """As `vmborg install-service` sets it up."""
    file = root / "server/prefect.db"
    server = _server(root, f"sqlite+aiosqlite:///{file}")
    server.start()
    try:
        yield Server(
            server.api,
            server.log,
            lambda: descendants(server.pid),
            lambda: sum(each.stat().st_size for each in file.parent.glob("prefect.db*")),
        )
    finally:
        server.stop()


@contextmanager
def postgres_server(root: Path) -> Generator[Server]:
    """As docs/scheduling.md sets it up; with fsync, as anybody's."""
    with postgres(root / "database") as database:
        database.psql("postgres", "ALTER SYSTEM SET fsync = on; ALTER SYSTEM SET max_connections = 200")
        database.kill()
        database.start()
        database.create("prefect")
        address = f"postgresql+asyncpg://root@/prefect?host={database.root}&port={database.port}"
        server = _server(root, address)
        server.start()
        try:
            yield Server(
                server.api,
                server.log,
                lambda: [*descendants(server.pid), *_processes(database)],
                lambda: int(database.psql("postgres", "SELECT pg_database_size('prefect')")),
            )
        finally:
            server.stop()


def _processes(database: Postgres) -> list[int]:
    master = int((database.root / "data/postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    return descendants(master)
