"""What a verb says: tables and bars on a terminal, plain lines elsewhere, one JSON document with --json."""

import json
import sys
import unicodedata
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, TextIO

from deployments.cli.progress import Bar, PlainBar, SilentBar, rich_bar
from deployments.cli.words import printable
from infra.errors import VmborgError

_GAP = 2  # blanks between columns
_STYLES = {"ok": "green", "warning": "yellow", "critical": "bold red", "unknown": "magenta"}


class Output:
    """Where a verb writes. With `json` set, everything but `document` and errors is silent on stdout."""

    def __init__(self, *, json: bool = False, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.json = json
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self._documented = False

    @property
    def terminal(self) -> bool:
        """Whether a person watches stdout."""
        return not self.json and self.stdout.isatty()

    def document(self, data: object) -> None:
        """The one JSON document of this call; nothing without --json.

        Dataclasses, paths, enums, times (ISO 8601, UTC) and durations (seconds) are understood.
        """
        if not self.json:
            return
        if self._documented:
            raise AssertionError("a second JSON document would make the first unreadable")
        self._documented = True
        text = json.dumps(data, default=_plain, ensure_ascii=False, indent=2)
        # A lone surrogate (a file name that is no UTF-8) becomes \udcXX, which is JSON's own escape for it.
        self.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
        self.stdout.flush()

    def line(self, text: str = "") -> None:
        """A line for people on stdout."""
        if not self.json:
            self.stdout.write(printable(text) + "\n")

    def verdict(self, level: str, text: str) -> None:
        """A line that begins with a level such as `critical`, coloured on a terminal."""
        if not self.terminal:
            self.line(f"{level:8}  {text}")
            return
        from rich.console import Console
        from rich.text import Text

        Console(file=self.stdout, soft_wrap=True).print(
            Text(f"{level:8}", style=_STYLES[level]) + printable(f"  {text}")
        )

    def note(self, text: str) -> None:
        """A line for people that is not the result; on stderr, also with --json."""
        self.stdout.flush()
        self.stderr.write(printable(text) + "\n")
        self.stderr.flush()

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[str] = (),
        less: Sequence[str] = (),
    ) -> None:
        """A table for people; `right` names the columns of numbers. Cells such as `critical` are coloured.

        A terminal that is too narrow is not shown the columns of `less`, one after the other.
        """
        if self.json:
            return
        cells = [[printable(cell) for cell in row] for row in rows]
        if self.terminal:
            self._rich_table(*_narrowed(headers, cells, less, get_terminal_size().columns), right)
        else:
            self.stdout.write(_aligned(headers, cells, right))

    def _rich_table(self, headers: Sequence[str], rows: list[list[str]], right: Sequence[str]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for header in headers:
            table.add_column(header, justify="right" if header in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        Console(file=self.stdout).print(table)

    def error(self, error: VmborgError) -> None:
        """An error in its three voices on stderr; with --json also as the document."""
        self.note(_three_voices(f"Error: {error.brief}", error))
        if not self._documented:
            self.document({"error": error_data(error)})

    def error_of(self, source: str, error: VmborgError) -> None:
        """The error of one source among several, on stderr; the document of all is still to come."""
        self.note(_three_voices(f"{source}: {error.brief}", error))

    def errors_of(self, failures: Mapping[str, VmborgError]) -> list[dict[str, str]]:
        """The error of each repository that could not be read, on stderr; the same as JSON-like data."""
        for name, error in failures.items():
            self.error_of(f"repository {name}", error)
        return [{"repository": name, **error_data(error)} for name, error in failures.items()]

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Generator[Bar]:
        """A bar of bytes for the length of the block, on stderr; `total` may become known later."""
        if self.json:
            yield SilentBar()
        elif self.stderr.isatty():
            with rich_bar(printable(title), total, self.stderr) as bar:
                yield bar
        else:
            yield PlainBar(title, total, self.note)


def _three_voices(first: str, error: VmborgError) -> str:
    lines = [first, *(f"  {line}" for line in error.evidence.rstrip().splitlines())]
    if error.remedy:
        lines.append(f"What to do: {error.remedy}")
    return "\n".join(lines)


def exit_code_of(errors: Sequence[VmborgError]) -> int:
    """The exit code of a verb that met these errors and went on: 2 when nothing but the configuration is wrong."""
    return min((error.exit_code for error in errors), default=0)


def error_data(error: VmborgError) -> dict[str, str]:
    """An error as JSON-like data."""
    return error.facts


def _plain(value: object) -> Any:
    """What json does not know by itself."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _aligned(headers: Sequence[str], rows: list[list[str]], right: Sequence[str]) -> str:
    """Columns two blanks apart, one line a row."""
    lines = [list(headers), *([cell.replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(_width(line[index]) for line in lines) for index in range(len(headers))]
    text = ""
    for line in lines:
        padded = [
            " " * (width - _width(cell)) + cell if header in right else cell + " " * (width - _width(cell))
            for cell, width, header in zip(line, widths, headers, strict=True)
        ]
        text += "  ".join(padded).rstrip() + "\n"
    return text


def _narrowed(
    headers: Sequence[str], rows: list[list[str]], less: Sequence[str], width: int
) -> tuple[list[str], list[list[str]]]:
    """The table without as many columns of `less` as keep it from `width`. The last column may be folded to half."""
    left = list(headers)
    for name in less:
        widths = [max(_width(line[headers.index(each)]) for line in (headers, *rows)) for each in left]
        if sum(widths[:-1]) + widths[-1] // 2 + _GAP * len(widths) <= width:
            break
        left.remove(name)
    chosen = [headers.index(each) for each in left]
    return left, [[row[index] for index in chosen] for row in rows]


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(bool(unicodedata.combining(character)) for character in text)
