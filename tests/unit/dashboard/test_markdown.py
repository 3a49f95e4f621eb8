"""Markdown that nothing from outside can break."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tasks.dashboard.markdown import code, escaped, link, table

HOSTILE = st.text(st.sampled_from(r"a`|*_<>[]()\&#~$" + "\n\t \x1b\u202e!"), max_size=12)


@given(HOSTILE)
def test_a_name_never_becomes_markup(name: str) -> None:
    """Whatever begins markup in a text from outside has a backslash before it, or is an entity; it stays one line."""
    text = re.sub(r"\\.|&(?:amp|lt|gt);", "", escaped(name))
    assert not set(text) & set("`|*_<>[]\\&#~$\n\t\x1b\u202e")


@given(HOSTILE)
def test_a_name_to_be_copied_does_not_end_its_fence(name: str) -> None:
    """No run of backticks inside is as long as the fence, and no bar ends the cell."""
    fence = re.match(r"`+", code(name))
    assert fence
    inside = code(name)[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in [run for run in re.findall(r"`+", inside) if len(run) == len(fence[0])]
    assert not re.search(r"(?<!\\)\|", inside)


@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=3))
def test_a_table_has_a_line_a_row(names: list[tuple[str, str]]) -> None:
    """Names do not add rows or columns."""
    lines = table(("a", "b"), [{"a": escaped(one), "b": escaped(two)} for one, two in names]).splitlines()
    assert len(lines) == 2 + len(names)
    assert {len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) for line in lines} == {3}


def test_a_link_stays_in_the_interface_it_is_in() -> None:
    """It is relative; without an artifact there is none."""
    assert link("web", "1d9f") == "[web](../artifact/1d9f)"
    assert link("a*", "") == r"a\*"
