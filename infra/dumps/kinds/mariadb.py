"""MariaDB and MySQL: each database as SQL, consistent by one transaction, with its routines, events and triggers."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from infra.dumps.script import NAME
from infra.dumps.source import Line, Port, RemotePath, Role, Source, Unit, require_tail

_OWN = ("information_schema", "performance_schema", "sys", "mysql")
# In hexadecimal: no name can be mistaken for two, whatever stands in it.
_LIST = "SELECT HEX(CONVERT(schema_name USING utf8mb4)) FROM information_schema.schemata ORDER BY 1"
_CHARSET = "--default-character-set=utf8mb4"


class MariaDB(Source):
    """A MariaDB server."""

    login_variable: ClassVar[str] = "MYSQL_PWD"
    programs: ClassVar[tuple[tuple[str, str], ...]] = (("mariadb-dump", "mysqldump"), ("mariadb", "mysql"))
    """The dumper and the client, each with its older name."""
    extra: ClassVar[str] = ""

    kind: Literal["mariadb"]
    databases: tuple[Line, ...] = Field(default=(), description="Only these; every database if empty.")
    exclude: tuple[Line, ...] = Field(default=(), description="Every database but these.")
    globals: bool = Field(default=True, description="Users and grants too (mariadb-dump --system=users).")
    host: Line | None = Field(default=None, description="Where the server is, else its socket.")
    port: Port | None = Field(default=None, description="The server's port.")
    socket: RemotePath | None = Field(default=None, description="The server's socket.")
    user: Line | None = Field(default=None, description="The database user; else that of the SSH login.")

    @property
    def _server(self) -> str:
        given = {"host": self.host, "port": self.port, "socket": self.socket, "user": self.user}
        return " ".join(f"--{key}={shlex.quote(str(value))}" for key, value in given.items() if value is not None)

    def _run(self, number: int, arguments: str) -> str:
        new, old = self.programs[number]
        arguments = f"{self._server} {_CHARSET} {arguments}".strip()
        if new == old:
            return f"exec {new} {arguments}"
        return f"p={new}; command -v $p >/dev/null || p={old}; exec $p {arguments}"

    @property
    def version(self) -> str:
        """What the dumper says of itself."""
        return self._run(0, "--version")

    @property
    def listing(self) -> str:
        """Every schema, in hexadecimal."""
        return "" if self.databases else self._run(1, f'--batch --skip-column-names -e "{_LIST}"')

    def parse_listing(self, output: bytes) -> list[str]:
        """The schemas, the server's own aside."""
        names = [bytes.fromhex(line.decode("ascii")).decode("utf-8") for line in output.split()]
        return [name for name in names if name.lower() not in _OWN]

    def units(self, names: Sequence[str]) -> list[Unit]:
        """The users, then each database."""
        chosen = [name for name in self.databases or names if name not in self.exclude]
        options = f"--single-transaction --quick --routines --events --triggers --hex-blob --skip-dump-date{self.extra}"
        script = self._run(0, f'{options} -- "${NAME}"')
        users = Unit(Role.GLOBALS, f"{self.label}/globals.sql", "", self._run(0, "--system=users --skip-dump-date"))
        dumps = [Unit(Role.DATABASE, self._place(name, ".sql"), name, script) for name in chosen]
        return [users, *dumps] if self.has_globals else dumps

    @property
    def has_globals(self) -> bool:
        """Whether users are dumped."""
        return self.globals

    def prove(self, unit: Unit, path: Path) -> None:
        """The last line that the dumper writes. The dump of the users has none but is short, and its status counts."""
        if unit.role is Role.DATABASE:
            require_tail(path, b"-- Dump completed", what="mysqldump")

    def restoring(self, unit: Unit) -> str:
        """Into a database that is made if it is missing. What the dump holds replaces what is there."""
        if unit.role is Role.GLOBALS:
            return self._run(1, "")
        client = self._run(1, "")
        made = f"printf 'CREATE DATABASE IF NOT EXISTS `%s`' \"$q\" | ({client}) || exit 1; "
        return f'q=$(printf %s "${NAME}" | sed \'s/`/``/g\'); {made}{client} -- "${NAME}"'


class MySQL(MariaDB):
    """A MySQL server. Its users are not dumped: mysqldump has no portable form of them."""

    programs: ClassVar[tuple[tuple[str, str], ...]] = (("mysqldump", "mysqldump"), ("mysql", "mysql"))
    extra: ClassVar[str] = " --no-tablespaces"

    kind: Literal["mysql"]  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def has_globals(self) -> bool:
        """Never."""
        return False
