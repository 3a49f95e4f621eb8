"""When new data is called unexpected."""

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from infra.config.upkeep import CheckConfig
from infra.model import StateDir
from tasks.growth import all_unexpected, judge, record, unexpected

GIB = 1024**3
POLICY = CheckConfig()
WHEN = datetime(2026, 11, 24, 3, tzinfo=UTC)
UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"


@given(st.lists(st.integers(0, 100 * GIB), max_size=2), st.integers(0, 10**15))
def test_without_a_history_nothing_is_unexpected(history: list[int], stored: int) -> None:
    """The first backups store everything: they are never called unexpected."""
    assert judge(history, stored, POLICY) == ""


@given(st.lists(st.integers(0, 100 * GIB), min_size=3, max_size=60), st.integers(0, 10**15))
def test_little_and_usual_data_is_expected(history: list[int], stored: int) -> None:
    """Below the floor, and up to the factor of the usual amount, nothing is said; above both it always is."""
    usual = sorted(history)[len(history) // 2]
    said = judge(history, stored, POLICY)
    if stored <= GIB:
        assert not said
    elif stored > 5 * usual:
        assert said
    elif stored <= 5 * sorted(history)[(len(history) - 1) // 2]:
        assert not said


def test_a_growth_is_remembered_until_the_next_backup(tmp_path: Path) -> None:
    """The last backup's verdict is what is told of a VM; the first full one does not make the rest look small."""
    state = StateDir(tmp_path)

    def back_up(stored: int) -> str:
        return record(state, POLICY, source=UUID, name="web", archive="a", stored=stored, when=WHEN)

    assert [back_up(stored) for stored in (80 * GIB, GIB, GIB, 2 * GIB)] == [""] * 4
    said = back_up(60 * GIB)
    assert "60.0 GiB of new data" in said
    assert (unexpected(state, UUID), all_unexpected(state)) == (said, {"web": said})
    back_up(GIB)
    assert (unexpected(state, UUID), all_unexpected(state)) == ("", {})
    assert unexpected(state, "another") == ""
