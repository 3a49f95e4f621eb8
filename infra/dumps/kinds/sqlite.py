"""SQLite: a consistent copy of a database file that is in use, by SQLite's own online backup."""

import shlex
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from pydantic import Field

from infra.dumps.source import RemotePath, Role, Source, Unit
from infra.errors import DumpIncomplete

_TEMPORARY = (
    't=$(mktemp "${TMPDIR:-/tmp}/vmborg.XXXXXXXX") || exit 74; trap \'rm -f "$t"\' EXIT; trap "exit 1" HUP INT TERM; '
)


class SQLite(Source):
    """A SQLite database file."""

    kind: Literal["sqlite"]
    path: RemotePath = Field(description="The database file on the dump host.")

    @property
    def version(self) -> str:
        """What the shell says of itself."""
        return "exec sqlite3 --version"

    def units(self, names: Sequence[str]) -> list[Unit]:  # noqa: ARG002 - it has no listing
        """The database. Without the first test sqlite3 would make an empty one."""
        path = shlex.quote(self.path)
        script = (
            f"test -f {path} || {{ echo no such file: {path} >&2; exit 66; }}; {_TEMPORARY}"
            f"""sqlite3 -batch {path} '.timeout 60000' ".backup main $t" && cat "$t" """
        )
        return [Unit(Role.DUMP, f"{self.label}.sqlite", "", script)]

    def prove(self, unit: Unit, path: Path) -> None:  # noqa: ARG002 - there is one kind of dump
        """SQLite's own integrity check, on the file that came."""
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
                answer = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
        except sqlite3.Error as error:
            answer = [str(error)]
        if answer != ["ok"]:
            raise DumpIncomplete(
                "SQLite finds the copy damaged.",
                evidence="\n".join(answer[:5]),
                remedy=f"Run PRAGMA integrity_check on {self.path} itself; the last good dump is kept.",
            )

    def restoring(self, unit: Unit) -> str:  # noqa: ARG002 - as above
        """Checked on the other side, then taken over by the online backup in the other direction."""
        path = shlex.quote(self.path)
        return (
            f"""{_TEMPORARY}cat >"$t" && test "$(sqlite3 -batch "$t" 'PRAGMA integrity_check')" = ok && """
            f"""sqlite3 -batch {path} '.timeout 60000' ".restore main $t" """
        )
