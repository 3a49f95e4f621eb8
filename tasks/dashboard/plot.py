"""Plots for artifacts: an SVG image inside the markdown. Pure.

Prefect 3.8.8 takes SVG elements out of markdown, and draws images from data URIs in both of its interfaces (looked at
in a browser). Such an image runs no script and fetches nothing. Whoever is not shown it finds the figures in the table.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 150
_LEFT, _TOP, _BOTTOM = 78, 36, 20
_WIDEST = 36.0  # of a bar with its gap: three backups do not look like three walls
_INK = "#8b93a3"  # read on a light page and on a dark one
_OUTLIER = 4
"""A value so many times the usual one is cut off and labelled: the first backup would flatten all others."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of bars: the oldest first; None where nothing is known."""

    title: str
    values: Sequence[float | None]
    colour: str
    show: Callable[[float], str]  # a value as people read it


def ceiling(values: Sequence[float | None]) -> float:
    """The value at the top of a plot: the highest, unless it is far above what is usual."""
    known = [value for value in values if value is not None]
    highest = max(known, default=0.0)
    usual = median(known) if known else 0.0
    return _OUTLIER * usual if 0 < _OUTLIER * usual < highest else highest


def image(panels: Sequence[Panel], first: str, last: str, alt: str) -> str:
    """The panels below each other as a markdown image; `first` and `last` label the ends of the time axis."""
    height = _HEIGHT * len(panels)
    drawn = "".join(_panel(panel, number * _HEIGHT, first, last) for number, panel in enumerate(panels))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="{_INK}">{drawn}</svg>'
    )
    return f"![{alt}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def _panel(panel: Panel, offset: int, first: str, last: str) -> str:
    top, bottom = offset + _TOP, offset + _HEIGHT - _BOTTOM
    highest = ceiling(panel.values)
    slot = min((_WIDTH - _LEFT) / max(len(panel.values), 1), _WIDEST)
    end = _LEFT + slot * len(panel.values)
    bars = "".join(
        _bar(value, panel, x=_LEFT + number * slot, wide=slot * 0.7, top=top, bottom=bottom)
        for number, value in enumerate(panel.values)
        if value is not None
    )
    return (
        f'<text x="0" y="{top - 20}" font-weight="600">{escape(panel.title)}</text>'
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH}" y2="{bottom}" stroke="{_INK}"/>'
        f'<line x1="{_LEFT}" y1="{top}" x2="{_WIDTH}" y2="{top}" stroke="{_INK}" stroke-dasharray="2 4"/>'
        f'<text x="{_LEFT - 8}" y="{top + 4}" text-anchor="end">{escape(panel.show(highest))}</text>'
        f'<text x="{_LEFT - 8}" y="{bottom + 4}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{bottom + 15}">{escape(first)}</text>'
        f'<text x="{max(end, _LEFT + 160):.0f}" y="{bottom + 15}" text-anchor="end">{escape(last)}</text>{bars}'
    )


def _bar(value: float, panel: Panel, *, x: float, wide: float, top: int, bottom: int) -> str:
    """One bar; one that is cut off says how high it would be."""
    highest = ceiling(panel.values)
    part = min(value / highest, 1.0) if highest else 0.0
    high = max(part * (bottom - top), 1.0)
    drawn = f'<rect x="{x:.1f}" y="{bottom - high:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="{panel.colour}"/>'
    if value <= highest:
        return drawn
    label = escape(panel.show(value))
    return f'{drawn}<text x="{x:.1f}" y="{top - 4}" fill="{panel.colour}">▲ {label}</text>'
