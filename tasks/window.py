"""The time between create and pivot: what ends it early, and how several repositories share it."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from infra.errors import DomainStateChanged, VmborgError, WindowExceeded
from infra.hypervisor.guard import OverlayGuard
from infra.model import DomainState
from tasks.domains import FrozenPoint
from tasks.job import BackupJob

_WATCH_INTERVAL_S = 1.0


class Stop:
    """Why a copy has to end early, told by whoever watches; the first reason counts."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.error: VmborgError | None = None
        self._then: list[Callable[[], None]] = []
        self._part: Stop | None = None

    def then(self, action: Callable[[], None]) -> None:
        """Do this too once it is told."""
        self._then.append(action)

    def __call__(self, error: VmborgError) -> None:
        """End it. The copy that is under way within its share ends, too."""
        if self.error is None:
            self.error = error
            self.event.set()
            for action in self._then:
                action()
        part = self._part
        if part is not None:
            part(error)

    @contextmanager
    def share(self, seconds: float, error: VmborgError) -> Generator["Stop"]:
        """A stop for one copy alone, which also ends after its share of the time, in seconds, with this error."""
        part = self._part = Stop()
        if self.error is not None:  # it was told before it knew of its part
            part(self.error)
        timer = threading.Timer(seconds, part, args=(error,))
        timer.daemon = True
        timer.start()
        try:
            yield part
        finally:
            timer.cancel()
            self._part = None


class Window:
    """The window of one run: its end, and the share of each copy that is still to be made."""

    def __init__(self, job: BackupJob, point: FrozenPoint) -> None:
        self.stop = Stop()
        self._bounded = bool(point.overlays)
        self._deadline = time.monotonic() + job.policy.create_deadline

    @contextmanager
    def share(self, name: str, *, left: int) -> Generator[Stop]:
        """The stop of the copy into the repository `name`, when `left` copies are to be made with this one.

        A repository that hangs must leave the others their part of create_deadline. The last one has what is left of
        it, which the guard looks after; a shut-off domain is in no hurry.
        """
        if left == 1 or not self._bounded:
            yield self.stop
            return
        seconds = max(0.0, self._deadline - time.monotonic()) / left
        with self.stop.share(seconds, _share_exceeded(name, seconds)) as part:
            yield part


@contextmanager
def watching(job: BackupJob, point: FrozenPoint) -> Generator[Window]:
    """Live: guard the overlays' space and the window's deadline. Shut off: look whether somebody starts the domain."""
    window = Window(job, point)
    stop = window.stop
    if point.overlays:
        guard = OverlayGuard(
            point.overlays,
            min_free=job.policy.min_free,
            deadline=job.policy.create_deadline,
            on_stop=lambda reason: stop(_window_exceeded(reason)),
        )
        with guard:
            yield window
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch_start, args=(job, stop, done), name="watch-start", daemon=True)
    watcher.start()
    try:
        yield window
    finally:
        done.set()
        watcher.join()
    if _is_active(job):
        stop(_started(job))


def _watch_start(job: BackupJob, stop: Stop, done: threading.Event) -> None:
    while not done.wait(_WATCH_INTERVAL_S):
        try:
            if _is_active(job):
                stop(_started(job))
                return
        except VmborgError as error:
            stop(error)
            return


def _is_active(job: BackupJob) -> bool:
    return job.domain.state() is not DomainState.SHUT_OFF


def _started(job: BackupJob) -> DomainStateChanged:
    return DomainStateChanged(
        f"The VM {job.name!r} was started while its shut-off images were read; that archive is discarded.",
        evidence="libvirt says the domain is active",
        remedy="None needed: the backup goes on the live way.",
    )


def _window_exceeded(reason: str) -> WindowExceeded:
    return WindowExceeded(
        "The copy was ended early so that the guest does not meet a full disk.",
        evidence=reason,
        remedy="Give the overlays' file system more room, raise create_deadline, or back up when it writes less.",
    )


def _share_exceeded(name: str, seconds: float) -> WindowExceeded:
    return WindowExceeded(
        f"The copy into the repository {name!r} was ended, to leave the other repositories their time.",
        evidence=f"it took more than {seconds:.0f} s, its share of create_deadline",
        remedy="Look whether this repository's storage answers; else raise create_deadline.",
    )
