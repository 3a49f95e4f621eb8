"""What is measured, against what, and the table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: a measured value and the bound it has to keep."""

    name: str
    ours: float
    theirs: float | None  # None: an absolute bound
    value: float
    bound: float
    unit: str = "x"
    at_least: bool = False

    @property
    def kept(self) -> bool:
        """Whether the bound holds."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


Pairs = Sequence[tuple[float, float]]
"""Seconds of ours and theirs, measured one right after the other."""


def ratio(name: str, pairs: Pairs, *, bound: float) -> Figure:
    """Our seconds as a share of theirs: the median of the pairs' own shares, so that a slow minute hits both."""
    share = median(ours / theirs for ours, theirs in pairs)
    return Figure(name, median(ours for ours, _ in pairs), median(theirs for _, theirs in pairs), share, bound)


def speed(name: str, pairs: Pairs, *, bound: float) -> Figure:
    """Our speed as a share of theirs for the same work; as `ratio`."""
    share = median(theirs / ours for ours, theirs in pairs)
    seconds = median(ours for ours, _ in pairs), median(theirs for _, theirs in pairs)
    return Figure(name, *seconds, share, bound, at_least=True)


def unbound(figure: Figure) -> Figure:
    """The same as a row that is only told."""
    return replace(figure, bound=0.0, at_least=True)


def absolute(name: str, value: float, *, bound: float, unit: str) -> Figure:
    """A value with a bound of its own."""
    return Figure(name, value, None, value, bound, unit)


def write_between(path: Path, marks: tuple[str, str], text: str) -> None:
    """Put a table into a page, between two lines that stay."""
    before, rest = path.read_text(encoding="utf-8").split(marks[0])
    after = rest.split(marks[1])[1]
    path.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")


def tell(text: str, target: Path | None, marks: tuple[str, str]) -> None:
    """Print a table, and put it into a page if one is named."""
    print(text)
    if target:
        write_between(target, marks, text)


def conclude(
    figures: Sequence[Figure], target: Path | None, marks: tuple[str, str], *, theirs: str = "article's commands"
) -> int:
    """Tell what was measured; the exit code."""
    tell(table(figures, theirs=theirs), target, marks)
    return 0 if all(figure.kept for figure in figures) else 1


def table(figures: Sequence[Figure], *, theirs: str = "article's commands") -> str:
    """A Markdown table."""
    lines = [
        f"| what | vmborg | {theirs} | measured | bound | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        other = "" if figure.theirs is None else f"{figure.theirs:.2f} s"
        ours = f"{figure.ours:.2f} s" if figure.theirs is not None else ""
        unit = "x" if figure.unit == "x" else f" {figure.unit}"
        promised = figure.bound or not figure.at_least
        verdict = "" if not promised else "kept" if figure.kept else "**missed**"
        measured, bound = f"{figure.value:.2f}{unit}", f"{sign} {figure.bound:g}{unit}" if promised else ""
        lines.append(f"| {figure.name} | {ours} | {other} | {measured} | {bound} | {verdict} |")
    return "\n".join(lines)
