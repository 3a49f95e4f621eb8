"""Sizes, times and names as people read them. Pure."""

import unicodedata
from datetime import UTC, datetime, timedelta

from tasks.units import size

__all__ = ["duration", "moment", "printable", "size"]


def duration(span: timedelta) -> str:
    """Two units at most: `45s`, `12m`, `3h 20m`, `2d 4h`."""
    seconds = max(int(span.total_seconds()), 0)
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if days:
        return f"{days}d {hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m" if minutes else f"{seconds}s"


def moment(when: datetime | None) -> str:
    """A time in UTC, which is what archives are named by: `2026-11-22 03:10:05Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if when else "never"


def printable(text: str) -> str:
    """Text from outside made safe for a terminal: control and format characters escaped, line ends kept."""
    return "".join(character if _is_safe(character) else _escaped(character) for character in text)


def _is_safe(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
