"""What is remembered between backups: generations are unique, and a damaged memory is none."""

from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.segments.state import (
    UNKNOWN,
    DiskState,
    Still,
    VmState,
    new_generation,
    parse_state,
    read_state,
    render_state,
)

MIB = 1024**2
NUMBERS = st.lists(st.integers(0, 2**63), min_size=3, max_size=3)


def disk_state(generations: list[int], still: Still | None = None) -> DiskState:
    """Of a disk with three segments."""
    return DiskState(
        path="/images/a.qcow2",
        inode=7,
        checkpoint="vmborg-00000000",
        size=9 * MIB,
        segment=4 * MIB,
        generations=array("Q", generations),
        tables=array("I", [1, 2, 3]),
        seen=array("Q", [UNKNOWN, 5, 6]),
        since_full=3,
        still=still,
    )


@given(NUMBERS, st.booleans())
def test_a_state_comes_back_as_it_was(numbers: list[int], shut_off: bool) -> None:  # noqa: FBT001
    """What is written is what is read."""
    still = Still((1, 2, 3, 4), array("Q", numbers), array("Q", [1, 2, 3])) if shut_off else None
    state = VmState({"vda": disk_state(numbers, still)}, archives=("a", "b"))
    assert parse_state(render_state(state)) == state


@given(st.data())
def test_a_damaged_state_is_no_state(data: st.DataObject) -> None:
    """One byte that changed anywhere is noticed."""
    text = render_state(VmState({"vda": disk_state([1, 2, 3])}))
    place = data.draw(st.integers(0, len(text) - 2))
    other = data.draw(st.characters(codec="ascii").filter(lambda each: each != text[place]))
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        parse_state(text[:place] + other + text[place + 1 :])


def test_an_absent_state_is_none(tmp_path: Path) -> None:
    """Where nothing was remembered there is nothing, and no error."""
    assert read_state(tmp_path / "none") is None


def test_a_generation_never_comes_again() -> None:
    """Of ten thousand generations no two are the same, and none is as new as a file that is written now."""
    given_out = [new_generation() for _ in range(10_000)]
    assert len(set(given_out)) == len(given_out)
    assert max(given_out) < Path("/proc/self/stat").stat().st_ctime_ns
