"""Any command whose output is the dump."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from infra.dumps.source import Line, Role, Source, Unit, require_tail


class Command(Source):
    """A command of the dump host."""

    kind: Literal["command"]
    command: Line = Field(description="One line for sh; its output is the dump, its exit code has to be 0.")
    ends_with: Line | None = Field(default=None, description="What the last line of a whole dump holds.")
    restore: Line | None = Field(default=None, description="One line for sh that takes the dump back as its input.")

    def units(self, names: Sequence[str]) -> list[Unit]:  # noqa: ARG002 - it has no listing
        """The one dump."""
        return [Unit(Role.DUMP, f"{self.label}.dump", "", self.command)]

    @property
    def by_hand(self) -> str:
        """Nothing is known of it unless the configuration says it."""
        return "" if self.restore else "Set `restore` in this source, a command that takes the dump, or use --to FILE."

    def prove(self, unit: Unit, path: Path) -> None:  # noqa: ARG002 - there is one kind of dump
        """The end that the configuration promises, if it promises one."""
        if self.ends_with is not None:
            require_tail(path, self.ends_with.encode(), what=f"the command {self.label!r}")

    def restoring(self, unit: Unit) -> str:  # noqa: ARG002 - as above
        """What the configuration says."""
        return self.restore or ""
