"""Wait for an event with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class GuestError(Exception):
    """A test guest could not be built, started or asked."""


def wait_for(probe: Callable[[], T | None], *, timeout: float, what: str, interval: float = 0.1) -> T:
    """Return the first true answer of `probe`. Seconds. Raises GuestError when none came in time."""
    deadline = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise GuestError(f"{what}: not within {timeout:g} s")
        time.sleep(interval)
