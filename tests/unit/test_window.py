"""How a window is shared by several copies, and how it ends."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.errors import NoSpace, VmborgError, WindowExceeded
from tasks.window import Stop, Window

ERROR = NoSpace("the overlay's space")


def window(*, deadline: float, live: bool = True) -> Window:
    """A window that nobody guards; `deadline` in seconds."""
    job = SimpleNamespace(policy=SimpleNamespace(create_deadline=deadline))
    return Window(cast("Any", job), cast("Any", SimpleNamespace(overlays=(1,) if live else ())))


def test_a_share_ends_alone() -> None:
    """A copy that uses up its share is stopped with an error of its own; the window goes on."""
    shared = window(deadline=0.2)
    with shared.share("main", left=2) as stop:
        assert stop.event.wait(20)
    assert isinstance(stop.error, WindowExceeded)
    assert "'main'" in stop.error.brief
    assert shared.stop.error is None
    with shared.share("second", left=1) as last:
        assert last is shared.stop


@pytest.mark.parametrize("late", [False, True])
def test_the_end_of_the_window_ends_the_copy_under_way(late: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What ends the window, while a copy runs or just before it begins, ends that copy with the window's error."""
    shared = window(deadline=3600)
    if not late:
        shared.stop(ERROR)
    with shared.share("main", left=2) as stop:
        if late:
            threading.Timer(0.01, shared.stop, args=(ERROR,)).start()
        assert stop.event.wait(20)
    assert (stop.error, shared.stop.error) == (ERROR, ERROR)


def test_a_share_is_an_equal_part_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three copies the first may take a third, the second half of what is left then, the last all of it."""
    clock = {"now": 1000.0}
    given: list[float] = []

    def note(self: Stop, seconds: float, error: VmborgError) -> Any:
        given.append(seconds)
        return _share(self, 3600, error)

    _share = Stop.share
    monkeypatch.setattr("tasks.window.time.monotonic", lambda: clock["now"])
    monkeypatch.setattr(Stop, "share", note)
    shared = window(deadline=90)
    with shared.share("a", left=3):
        clock["now"] += 10
    with shared.share("b", left=2):
        clock["now"] += 40
    with shared.share("c", left=1):
        pass
    assert given == [30, 40]


def test_a_shut_off_domain_has_no_deadline() -> None:
    """Without overlays nobody waits: no copy has a share."""
    shared = window(deadline=0.01, live=False)
    with shared.share("main", left=2) as stop:
        assert stop is shared.stop
