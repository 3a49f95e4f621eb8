"""Markdown as Prefect's dashboard draws it: what comes from outside never becomes markup. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from tasks.health import Health

_SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # where a backslash helps in one of Prefect's two interfaces only
_WHOLE = str.maketrans({" ": "\u00a0", "-": "\u2011"})
_MARKS = {Health.OK: "✔", Health.WARNING: "▲", Health.CRITICAL: "✖", Health.UNKNOWN: "?"}


def escaped(text: str) -> str:
    """Text from outside (names of VMs, errors) as plain text of one line."""
    plain = _SPECIAL.sub(r"\\\1", " ".join(visible(text).split()))
    return "".join(_ENTITIES.get(each, each) for each in plain)


def whole(text: str) -> str:
    """Text that is not broken into lines in a narrow column: amounts, times."""
    return text.translate(_WHOLE)


def code(text: str) -> str:
    """A name to be copied, in a monospaced font: fenced by more backticks than it has in a row, blanks kept."""
    shown = visible(text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall(r"`+", shown)), default=0) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def visible(text: str) -> str:
    """Text without characters that nobody sees or that end a line."""
    return "".join("�" if unicodedata.category(each) in {"Cc", "Cf", "Cs"} else each for each in text)


def mark(health: str) -> str:
    """A level with its sign, so that it is seen without colours."""
    return f"{_MARKS[Health(health)]} {health}"


def link(text: str, artifact: str) -> str:
    """A link to another artifact by its id: relative, so that it stays in the interface (Prefect has two) it is in.

    By its key one would see a list of versions first.
    """
    return f"[{escaped(text)}](../artifact/{artifact})" if artifact else escaped(text)


def table(columns: Sequence[str], rows: Iterable[Mapping[str, str]], *, right: Sequence[str] = ()) -> str:
    """A table of cells that are markdown already; what a row does not have is empty."""
    rule = "|".join("---:" if column in right else "---" for column in columns)
    lines = [f"| {' | '.join(columns)} |", f"|{rule}|"]
    lines += [f"| {' | '.join(row.get(column, '') for column in columns)} |" for row in rows]
    return "\n".join(lines)


def facts(pairs: Mapping[str, str]) -> str:
    """What is known, one line each; what is not known is left out."""
    return "\n".join(f"- **{name}:** {text}" for name, text in pairs.items() if text)
