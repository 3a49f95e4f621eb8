"""Redis: the RDB file that a replica would be given."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from infra.dumps.rdb import require_whole
from infra.dumps.source import Line, Port, RemotePath, Role, Source, Unit


class Redis(Source):
    """A Redis or Valkey server.

    A server takes an RDB file only at its start, so there is no restore into it. To make it a replica of another server
    that has loaded the file would do; but a connection that is lost then leaves it read-only, or empty.
    """

    login_variable: ClassVar[str] = "REDISCLI_AUTH"

    kind: Literal["redis"]
    host: Line | None = Field(default=None, description="Where the server is, seen from the dump host.")
    port: Port | None = Field(default=None, description="The server's port.")
    socket: RemotePath | None = Field(default=None, description="The server's socket.")
    user: Line | None = Field(default=None, description="The user of the server's ACL.")

    @property
    def version(self) -> str:
        """What redis-cli says of itself."""
        return "exec redis-cli --version"

    def units(self, names: Sequence[str]) -> list[Unit]:  # noqa: ARG002 - it has no listing
        """The whole server."""
        given = {"-h": self.host, "-p": self.port, "-s": self.socket, "--user": self.user}
        server = " ".join(f"{key} {shlex.quote(str(value))}" for key, value in given.items() if value is not None)
        return [Unit(Role.DUMP, f"{self.label}.rdb", "", f"exec redis-cli {server} --rdb -")]

    @property
    def by_hand(self) -> str:
        """What to do with the file."""
        return "Restore with --to FILE. Stop Redis, put the file in the place of its dump.rdb, start it without AOF."

    def prove(self, unit: Unit, path: Path) -> None:  # noqa: ARG002 - there is one kind of dump
        """Magic, end mark and checksum of the RDB format."""
        require_whole(path)
