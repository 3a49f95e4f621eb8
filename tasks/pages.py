"""What a Prefect server tells a page at a time."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAGE = 200
"""Rows of one answer at most: the server's own limit (PREFECT_SERVER_API_DEFAULT_LIMIT)."""


def every(read: Callable[..., list[T]]) -> list[T]:
    """All rows that a call of Prefect's client has to tell; it takes `limit` and `offset`. Raises what it raises."""
    found: list[T] = []
    while page := read(limit=PAGE, offset=len(found)):
        found += page
    return found
