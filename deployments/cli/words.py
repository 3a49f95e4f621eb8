"""Sizes, times and names as people read them. Pure."""

import unicodedata

from tasks.units import duration, moment, size

__all__ = ["duration", "moment", "printable", "size"]


def printable(text: str) -> str:
    """Text from outside made safe for a terminal: control and format characters escaped, line ends kept."""
    return "".join(character if _is_safe(character) else _escaped(character) for character in text)


def _is_safe(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
