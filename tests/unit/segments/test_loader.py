"""Segments that are brought into memory ahead of borg."""

from array import array
from dataclasses import dataclass, field

import pytest

from infra.segments import loader
from infra.segments.loader import Loader, Source
from infra.segments.state import UNKNOWN

SEGMENT = 4096
AHEAD = 3


@dataclass
class Image:
    """An image whose every segment begins with its own number; it notes what is read of it."""

    size: int
    asked: list[int] = field(default_factory=list[int])

    def read_into(self, target: memoryview, offset: int) -> bool:
        """As `Qcow2Image` does."""
        self.asked.append(offset // SEGMENT)
        target[:] = bytes([offset // SEGMENT]) * len(target)
        return offset != 0


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Image:
    """Of twelve segments; three are read ahead."""
    monkeypatch.setattr(loader, "_AHEAD_BYTES", AHEAD * SEGMENT)
    return Image(12 * SEGMENT)


def opened(image: Image, wanted: frozenset[int] | None = None) -> Loader:
    """A loader of this image."""
    return Loader((Source(image, SEGMENT, wanted, array("Q", [UNKNOWN]) * 12),))  # pyright: ignore[reportArgumentType]


def test_the_way_ahead_stays_as_long_while_borg_goes_on(image: Image) -> None:
    """Not all of it used up first, and then borg waiting for a segment to come from storage."""
    loads = opened(image)
    for number in range(12):
        content = loads.content(0, number)
        assert (bytes(content[:1]) if content else b"\0") == bytes([number])
        assert loads.read_bytes == min(number + 1 + AHEAD, 12) * SEGMENT
    loads.close()
    assert sorted(image.asked) == list(range(12))


def test_only_what_is_going_to_be_read_is_read_ahead(image: Image) -> None:
    """Segments that did not change are passed over."""
    loads = opened(image, frozenset({2, 4, 5, 9}))
    loads.content(0, 2)
    assert loads.read_bytes == 3 * SEGMENT
    loads.content(0, 4)
    loads.content(0, 5)
    loads.close()
    assert sorted(image.asked) == [2, 4, 5]
