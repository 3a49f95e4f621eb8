"""The short facts in an archive's comment: `key=value` pairs, so that a list needs no extraction.

borg reads single braces in a comment as placeholders and fails (borg 1.4.5, rc 6); percent-encoding keeps them,
blanks and `=` out of keys and values.
"""

from collections.abc import Mapping
from urllib.parse import quote, unquote

_SAFE = ":,.-_+@/"


def render_comment(facts: Mapping[str, str]) -> str:
    """`{"vm": "a b", "v": "1"}` becomes `vm=a%20b v=1`; empty values are kept."""
    return " ".join(f"{quote(key, safe='')}={quote(value, safe=_SAFE)}" for key, value in facts.items())


def parse_comment(comment: str) -> dict[str, str]:
    """The facts of a comment; words without `=` (somebody else's comment) are passed over."""
    pairs = (word.split("=", 1) for word in comment.split() if "=" in word)
    return {unquote(key): unquote(value) for key, value in pairs}
