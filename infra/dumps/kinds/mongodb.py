"""MongoDB: the archive of mongodump."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from infra.dumps.mongo_archive import require_whole
from infra.dumps.source import Line, Port, Role, Source, Unit

_QUOTED = """$(printf %s "$VMBORG_PASSWORD" | sed "s/'/''/g")"""


class MongoDB(Source):
    """A MongoDB server. The password reaches mongodump in a configuration file that is a pipe."""

    login_variable: ClassVar[str] = "VMBORG_PASSWORD"

    kind: Literal["mongodb"]
    host: Line | None = Field(default=None, description="Where the server is, seen from the dump host.")
    port: Port | None = Field(default=None, description="The server's port.")
    user: Line | None = Field(default=None, description="The database user.")
    authentication_database: Line | None = Field(default=None, description="The database that knows the user.")
    oplog: bool = Field(default=False, description="One instant for all collections; only of a replica set.")

    def _run(self, program: str, options: str) -> str:
        given = {
            "host": self.host,
            "port": self.port,
            "username": self.user,
            "authenticationDatabase": self.authentication_database,
        }
        server = "".join(f" --{key}={shlex.quote(str(value))}" for key, value in given.items() if value is not None)
        password = f'printf "password: \'%s\'\\n" "{_QUOTED}"'
        # Descriptor 3 is the input; the pipe of the password takes its place as the standard input.
        settings = 'test -z "${VMBORG_PASSWORD-}" || set -- --config=/dev/fd/4'
        return (
            f"{settings}; exec 3<&0; {{ {password}; }} | {{ exec 4<&0 0<&3 3<&-; exec {program}{server} "
            f'{options} "$@"; }}'
        )

    @property
    def version(self) -> str:
        """What mongodump says of itself."""
        return "exec mongodump --version"

    def units(self, names: Sequence[str]) -> list[Unit]:  # noqa: ARG002 - it has no listing
        """The whole server."""
        oplog = " --oplog" if self.oplog else ""
        return [Unit(Role.DUMP, f"{self.label}.archive", "", self._run("mongodump", f"--archive{oplog}"))]

    def prove(self, unit: Unit, path: Path) -> None:  # noqa: ARG002 - there is one kind of dump
        """Every collection that the archive announces has come to its end."""
        require_whole(path)

    def restoring(self, unit: Unit) -> str:  # noqa: ARG002 - as above
        """Collections of the dump replace those of the same name."""
        return self._run("mongorestore", f"--archive --drop{' --oplogReplay' if self.oplog else ''}")
