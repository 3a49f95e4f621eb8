"""The overlay guard: when a copy has to end so that no guest meets a full disk."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.hypervisor.guard import OverlayGuard, Volume, measure, verdict
from infra.model import ImageKind, Overlay

GIB = 1024**3
VOLUME = Volume("/images/a", free=10 * GIB, has_overlays=True, commit_needs=2 * GIB)


def end(*volumes: Volume, min_free: int = GIB, elapsed: float = 1, deadline: float = 60) -> str:
    """The verdict with usual settings."""
    return verdict(volumes, min_free=min_free, elapsed=elapsed, deadline=deadline)


@pytest.mark.parametrize(
    ("volume", "ends"),
    [
        (VOLUME, False),
        (replace(VOLUME, free=3 * GIB), False),
        (replace(VOLUME, free=3 * GIB - 1), True),
        (replace(VOLUME, free=GIB, commit_needs=0), False),
        (replace(VOLUME, free=GIB - 1, commit_needs=0), True),
        (replace(VOLUME, has_overlays=False, free=2 * GIB), False),
        (replace(VOLUME, has_overlays=False, free=2 * GIB - 1), True),
        (replace(VOLUME, has_overlays=False, free=0, commit_needs=0), False),
    ],
)
def test_a_copy_ends_before_the_commit_or_the_guest_lacks_space(volume: Volume, *, ends: bool) -> None:
    """Below min_free plus what the commit may need it ends; where no overlay lies, only the commit counts."""
    assert bool(end(volume)) is ends
    assert bool(end(VOLUME, volume)) is ends


def test_a_reason_names_the_place_and_the_numbers() -> None:
    """Who reads it knows which file system, what is free and what must stay so."""
    reason = end(replace(VOLUME, free=5))
    assert all(part in reason for part in ("/images/a", "5 bytes", str(3 * GIB), str(2 * GIB)))


def test_the_deadline_ends_a_copy() -> None:
    """At the deadline it may go on, after it not."""
    assert end(VOLUME, elapsed=60, deadline=60) == ""
    assert "60 s" in end(VOLUME, elapsed=60.1, deadline=60)


@given(
    free=st.integers(0, 100),
    less=st.integers(0, 100),
    needs=st.integers(0, 100),
    more=st.integers(0, 100),
    min_free=st.integers(0, 100),
)
def test_less_space_never_lets_a_copy_go_on(*, free: int, less: int, needs: int, more: int, min_free: int) -> None:
    """Whatever ended a copy ends it with less space or a greater need too."""
    volume = Volume("/x", free=free, has_overlays=True, commit_needs=needs)
    worse = replace(volume, free=max(0, free - less), commit_needs=needs + more)
    assert not end(volume, min_free=min_free) or end(worse, min_free=min_free)


def overlay(folder: Path, base_format: str, *, base_size: int = 0, base_data: int = 0, held: int = 0) -> Overlay:
    """Files of these sizes in bytes that stand for a base and its overlay."""
    base, path = folder / f"base.{base_format}", folder / f"overlay-{base_format}.qcow2"
    with base.open("wb") as file:
        file.write(os.urandom(base_data))
        file.truncate(max(base_size, base_data))
    path.write_bytes(os.urandom(held))
    for file in (base, path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())  # until then some file systems allocate nothing
    return Overlay("vda", str(base), ImageKind.FILE, base_format, str(path))


@pytest.mark.parametrize(
    ("base_format", "base_size", "base_data", "needs"),
    [
        ("qcow2", 0, 0, 1024**2),  # it may have to grow by all that the overlay holds
        ("raw", 64 * 1024**2, 0, 1024**2),
        ("raw", 0, 4 * 1024**2, 0),  # no holes: it does not grow
    ],
)
def test_a_base_needs_what_it_may_grow_by(
    tmp_path: Path, *, base_format: str, base_size: int, base_data: int, needs: int
) -> None:
    """All that the overlay holds, at the most the holes of a raw base."""
    made = overlay(tmp_path, base_format, base_size=base_size, base_data=base_data, held=1024**2)
    (volume,) = measure([made])
    assert volume.has_overlays
    assert volume.commit_needs == needs
    assert volume.free > 0


def test_needs_of_one_file_system_add_up(tmp_path: Path) -> None:
    """Two disks beside each other are one volume; a device needs no room."""
    first = overlay(tmp_path, "qcow2", held=1024**2)
    second = overlay(tmp_path, "raw", base_size=64 * 1024**2, held=2 * 1024**2)
    device = replace(first, base_kind=ImageKind.BLOCK, base="/dev/none")
    (volume,) = measure([first, second, device])
    assert volume.commit_needs == 3 * 1024**2


def test_the_guard_calls_once_and_tells_why(tmp_path: Path) -> None:
    """More than there is cannot be kept free: the copy ends at once, once, with the reason."""
    calls: list[str] = []
    called = threading.Event()

    def on_stop(reason: str) -> None:
        calls.append(reason)
        called.set()

    with OverlayGuard([overlay(tmp_path, "qcow2", held=1)], min_free=2**62, deadline=60, on_stop=on_stop) as guard:
        assert called.wait(10)
    assert calls == [guard.reason]
    assert str(tmp_path) in guard.reason


def test_a_window_that_cannot_be_watched_is_ended(tmp_path: Path) -> None:
    """An overlay that is gone is a reason, not the guard's silent end."""
    called = threading.Event()
    gone = Overlay("vda", str(tmp_path), ImageKind.FILE, "raw", str(tmp_path / "gone"))
    with OverlayGuard([gone], min_free=0, deadline=60, on_stop=lambda _: called.set()) as guard:
        assert called.wait(10)
    assert "cannot be watched" in guard.reason


def test_a_quiet_guard_says_nothing(tmp_path: Path) -> None:
    """With space and time it ends with its block."""
    with OverlayGuard([overlay(tmp_path, "qcow2", held=1)], min_free=0, deadline=60, on_stop=pytest.fail) as guard:
        pass
    assert guard.reason == ""
