"""Progress of a copy: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol, TextIO

from deployments.cli.words import size

_EVERY = 10.0  # seconds between plain lines


class Bar(Protocol):
    """What a verb tells about its progress."""

    def update(self, done: int, *, total: int | None = None, text: str | None = None) -> None:
        """`done` bytes of `total` are through; `text` replaces the title. What is None stays as it was."""
        ...


class SilentBar:
    """For --json."""

    def update(self, done: int, *, total: int | None = None, text: str | None = None) -> None:
        """Say nothing."""


class PlainBar:
    """A line every ten seconds, for logs and mails."""

    def __init__(self, title: str, total: int | None, say: Callable[[str], None]) -> None:
        self._title = title
        self._total = total
        self._say = say
        self._next = time.monotonic() + _EVERY

    def update(self, done: int, *, total: int | None = None, text: str | None = None) -> None:
        """Say it if it is time."""
        self._title = text or self._title
        self._total = self._total if total is None else total
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        share = f" of {size(self._total)} ({100 * done // self._total} %)" if self._total else ""
        self._say(f"{self._title}: {size(done)}{share}")


@contextmanager
def rich_bar(title: str, total: int | None, stream: TextIO) -> Generator[Bar]:
    """rich's bar with bytes, speed and remaining time."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=False) as progress:
        task = progress.add_task(title, total=total)

        class RichBar:
            def update(self, done: int, *, total: int | None = None, text: str | None = None) -> None:
                progress.update(task, completed=done, total=total, description=text)

        yield RichBar()
