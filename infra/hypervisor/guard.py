"""Watching the overlays while borg reads their bases: end the copy before a guest hits a full disk.

The commit needs room too: a base with holes grows by what its overlay holds. The copy is ended while that room is
there still.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.model import ImageKind, Overlay

logger = logging.getLogger("vmborg.guard")

INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system that the window depends on. Sizes in bytes."""

    path: str  # somewhere on it
    free: int
    has_overlays: bool  # guests write to it now
    commit_needs: int  # what its bases may grow by when the overlays are committed into them


def verdict(volumes: Sequence[Volume], *, min_free: int, elapsed: float, deadline: float) -> str:
    """Why the copy must end now, "" if it may go on. Pure; `elapsed` and `deadline` in seconds."""
    for volume in volumes:
        keep = volume.commit_needs + (min_free if volume.has_overlays else 0)
        if volume.free < keep:
            return (
                f"the file system of {volume.path} has {volume.free} bytes free and must keep {keep}: "
                f"{volume.commit_needs} for the commit of the overlays, the rest for guests (min_free)"
            )
    if elapsed > deadline:
        return f"the deadline of {deadline:g} s for the time on overlays has passed"
    return ""


def measure(overlays: Sequence[Overlay]) -> tuple[Volume, ...]:
    """The file systems of the overlays and their bases, as they are now. Raises OSError."""
    needs: dict[int, int] = {}
    holders: dict[int, str] = {}
    devices: dict[int, str] = {}
    for overlay in overlays:
        found = Path(overlay.path).stat()
        holders.setdefault(found.st_dev, overlay.path)
        if overlay.base_kind is ImageKind.FILE:
            base = Path(overlay.base).stat()
            devices.setdefault(base.st_dev, overlay.base)
            needs[base.st_dev] = needs.get(base.st_dev, 0) + _growth(overlay, base, held=found.st_blocks * 512)
    return tuple(
        Volume(path, _free(path), has_overlays=device in holders, commit_needs=needs.get(device, 0))
        for device, path in (devices | holders).items()
    )


def _growth(overlay: Overlay, base: os.stat_result, *, held: int) -> int:
    """How much the base may grow: by all that the overlay holds, a raw base by its holes at the most."""
    if overlay.base_format == "raw":
        return min(held, max(0, base.st_size - base.st_blocks * 512))
    return held


def _free(path: str) -> int:
    """Bytes free for qemu, which does not run as root: f_bavail of statvfs(3).

    A file system that does not tell (some in user space) has no blocks at all; it is not taken for full.
    """
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize if found.f_blocks else sys.maxsize


class OverlayGuard:
    """Calls `on_stop` once, from its own thread, with the reason why the copy must end. A context manager.

    `min_free` in bytes, `deadline` in seconds from the entry of the block.
    """

    def __init__(
        self, overlays: Sequence[Overlay], *, min_free: int, deadline: float, on_stop: Callable[[str], None]
    ) -> None:
        self._overlays = tuple(overlays)
        self._min_free = min_free
        self._deadline = deadline
        self._on_stop = on_stop
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="overlay-guard", daemon=True)
        self._began = 0.0
        self.reason = ""
        """Why it ended the copy; "" if it did not."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.is_set():
            self.reason = self._look()
            if self.reason:
                self._on_stop(self.reason)
                logger.warning("the copy is ended early: %s", self.reason)
                return
            self._end.wait(INTERVAL_S)

    def _look(self) -> str:
        try:
            volumes = measure(self._overlays)
        except OSError as error:  # a window that nobody can watch is not kept open
            return f"the overlays cannot be watched: {error}"
        elapsed = time.monotonic() - self._began
        return verdict(volumes, min_free=self._min_free, elapsed=elapsed, deadline=self._deadline)
