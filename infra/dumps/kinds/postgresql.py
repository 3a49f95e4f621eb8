"""PostgreSQL: every database in pg_dump's custom format, and the roles and tablespaces of the server."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from infra.dumps.script import NAME, exports
from infra.dumps.source import Line, Port, Role, Source, Unit, require_tail

_LIST = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
# PGDATABASE is taken as it is; an argument of these programs would be read as a connection string if it has a `=`.
_EXISTS = "SELECT 1 FROM pg_database WHERE datname = :'name'"
_FROM_NAME = f"PGDATABASE=${NAME}; export PGDATABASE; "


class PostgreSQL(Source):
    """A PostgreSQL server.

    Uncompressed (-Z0): borg finds what has not changed, and compresses. A dump that was streamed has its table of
    contents at its beginning, so `pg_restore --list` alone would take a truncated one for whole: all of it is read.
    """

    login_variable: ClassVar[str] = "PGPASSWORD"
    prover: ClassVar[str] = "pg_restore"

    kind: Literal["postgresql"]
    databases: tuple[Line, ...] = Field(default=(), description="Only these; every database if empty.")
    exclude: tuple[Line, ...] = Field(default=(), description="Every database but these.")
    globals: bool = Field(default=True, description="Roles and tablespaces too (pg_dumpall --globals-only).")
    role_passwords: bool = Field(
        default=True, description="With the hashes of the roles' passwords, if the database user may read them."
    )
    host: Line | None = Field(default=None, description="Where the server is, else its socket.")
    port: Port | None = Field(default=None, description="The server's port.")
    user: Line | None = Field(default=None, description="The database user; else that of the SSH login.")
    maintenance: Line = Field(default="postgres", description="The database that is asked for the list.")

    @property
    def _env(self) -> str:
        return exports(PGHOST=self.host, PGPORT=self.port, PGUSER=self.user, PGCONNECT_TIMEOUT=15)

    @property
    def version(self) -> str:
        """What pg_dump says of itself."""
        return "exec pg_dump --version"

    @property
    def listing(self) -> str:
        """Every database that takes connections, templates aside, each ended by a NUL."""
        if self.databases:
            return ""
        return f'{self._env}{exports(PGDATABASE=self.maintenance)}exec psql -XAtw0 -c "{_LIST}"'

    def units(self, names: Sequence[str]) -> list[Unit]:
        """The globals, then each database."""
        chosen = [name for name in self.databases or names if name not in self.exclude]
        passwords = "" if self.role_passwords else " --no-role-passwords"
        everything = f"{self._env}exec pg_dumpall -w --globals-only{passwords}"
        script = f"{self._env}{_FROM_NAME}exec pg_dump -w -Fc -Z0"
        roles = [Unit(Role.GLOBALS, f"{self.label}/globals.sql", "", everything)] if self.globals else []
        return roles + [Unit(Role.DATABASE, self._place(name, ".dump"), name, script) for name in chosen]

    def prove(self, unit: Unit, path: Path) -> None:
        """pg_dumpall's last line; a database's dump is read by `proof_command`."""
        if unit.role is Role.GLOBALS:
            # A line of dashes follows, and since 2025 an `unrestrict`.
            require_tail(path, b"-- PostgreSQL database cluster dump complete", what="pg_dumpall", lines=5)

    def proof_command(self, unit: Unit, path: Path) -> tuple[str, ...]:
        """pg_restore, which reads the whole file and writes nothing."""
        return () if unit.role is Role.GLOBALS else (self.prover, "--file=/dev/null", str(path))

    def restoring(self, unit: Unit) -> str:
        """All or nothing: one transaction, into a database that is made if it is missing."""
        if unit.role is Role.GLOBALS:
            return f"{self._env}{exports(PGDATABASE=self.maintenance)}exec psql -Xwq"
        make = (
            f"""echo "{_EXISTS}" | psql -XAtwq -v name="${NAME}" | grep -q 1 || """
            f"""echo 'CREATE DATABASE :"name" TEMPLATE template0' | psql -Xwq -v ON_ERROR_STOP=1 -v name="${NAME}" """
            "|| exit 1; "
        )
        # -d takes a connection string, so the name is quoted as one (libpq, "Keyword/Value Connection Strings").
        quoted = f"""q=$(printf %s "${NAME}" | sed "s/[\\\\\\\\']/\\\\\\\\&/g"); """
        options = "--clean --if-exists --single-transaction --exit-on-error -w"
        return (
            f"{self._env}{exports(PGDATABASE=self.maintenance)}{make}{quoted}"
            f"""exec pg_restore {options} -d "dbname='$q'" """
        )
