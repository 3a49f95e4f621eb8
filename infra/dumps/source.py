"""What every kind of source has in common. A kind is one class in one file of infra/dumps/kinds.

A source is written in the configuration, so it is a pydantic model; and it knows the commands that run on the dump
host, the sign by which its format shows that a dump is whole, and how a dump is put back.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from infra.dumps.script import file_name
from infra.errors import DumpIncomplete

_TAIL_BYTES = 4096


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be one line of printable text, not empty")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be an absolute path")
    return _one_line(text)


Line = Annotated[str, AfterValidator(_one_line)]
RemotePath = Annotated[str, AfterValidator(_absolute)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Port = Annotated[int, Field(gt=0, lt=65536)]


class Role(StrEnum):
    """What a dump holds."""

    DATABASE = "database"
    GLOBALS = "globals"  # users, roles, grants of a whole server
    DUMP = "dump"  # the one thing that its source gives
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Unit:
    """One dump that a source gives."""

    role: Role
    path: str  # of the file, below the host's tree
    database: str  # "" unless the role is database
    script: str  # one line for sh on the dump host; its output is the dump

    @property
    def title(self) -> str:
        """What people call it."""
        return self.database or self.role.value


class Source(BaseModel):
    """A source of dumps on a host."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    login_variable: ClassVar[str] = ""
    """The environment variable from which its programs take a password; "" if it takes none."""
    prover: ClassVar[str] = ""
    """The local program of `proof_command`; "" if it needs none."""

    kind: Any
    name: Label | None = Field(default=None, description="Its name in the tree, in archives and commands; else `kind`.")
    floor: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A dump smaller than this share of the last one is not believed. 0 believes any.",
    )

    @property
    def label(self) -> str:
        """Its name among the sources of its host."""
        return self.name or str(self.kind)

    @property
    def version(self) -> str:
        """A script that prints the version of the program that dumps; "" for none."""
        return ""

    @property
    def listing(self) -> str:
        """A script that lists what there is to dump; "" if that is known beforehand."""
        return ""

    def parse_listing(self, output: bytes) -> list[str]:
        """The names in what the listing printed. Raises ValueError."""
        return [name for name in output.decode("utf-8", "surrogateescape").split("\0") if name]

    def units(self, names: Sequence[str]) -> list[Unit]:
        """What to dump. `names` is what the listing gave."""
        raise NotImplementedError

    def prove(self, unit: Unit, path: Path) -> None:
        """Look for the format's own sign that a file is whole. Raises DumpIncomplete."""

    def proof_command(self, unit: Unit, path: Path) -> tuple[str, ...]:  # noqa: ARG002 - what others need
        """A local program that fails unless the file is whole; () for none."""
        return ()

    def restoring(self, unit: Unit) -> str:  # noqa: ARG002 - what others need
        """A script that takes such a dump as its input and puts it into the database; "" if there is none."""
        return ""

    @property
    def by_hand(self) -> str:
        """What to do with a dump of it, where vmborg does not put it back itself; "" where `restoring` does."""
        return ""

    def unit_of(self, role: Role, database: str) -> Unit:
        """The dump of this role and database, whether it exists now or not."""
        found = [each for each in self.units([database]) if each.role is role]
        return found[0] if found else Unit(role, "", database, "")

    def scripts(self) -> list[tuple[str, bool]]:
        """Every script that dumping may run, with whether it reads a name: what a key has to be allowed."""
        fixed = [(script, False) for script in (self.version, self.listing) if script]
        units = [(unit.script, unit.role is Role.DATABASE) for unit in self.units(["any"]) if unit.script]
        return [*fixed, *units]

    def _place(self, name: str, suffix: str) -> str:
        return f"{self.label}/{file_name(name)}{suffix}"


def require_tail(path: Path, sign: bytes, *, what: str, lines: int = 1) -> None:
    """`sign` has to be in the last so many lines of the file. Raises DumpIncomplete."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read().rstrip()
    last = b"\n".join(tail.rsplit(b"\n", lines)[-lines:])
    if sign not in last:
        raise DumpIncomplete(
            f"The dump does not end as {what} ends one.",
            evidence=f"wanted {sign.decode()!r}, found {last[-120:].decode('utf-8', 'replace')!r}",
            remedy="Look at the database's own log; the last good dump is kept.",
        )
