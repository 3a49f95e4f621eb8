"""An archive's comment: facts in, the same facts out, and nothing in between that borg takes for a placeholder."""

from hypothesis import example, given
from hypothesis import strategies as st

from infra.borg.comment import parse_comment, render_comment

KEYS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(st.dictionaries(KEYS, VALUES, max_size=10))
@example({"vm": "a b=c {now} %20 \n ü", "uncovered": "", "disks": "vda:10737418240,vdb:1"})
def test_facts_survive(facts: dict[str, str]) -> None:
    """Every fact is read back as it was written."""
    assert parse_comment(render_comment(facts)) == facts


@given(st.dictionaries(KEYS, VALUES, max_size=10))
def test_no_placeholder(facts: dict[str, str]) -> None:
    """A comment is one printable line without braces."""
    comment = render_comment(facts)
    assert comment == "" or comment.isprintable()
    assert not set(comment) & set("{}")


@given(st.text(max_size=200))
@example("%")
@example("a=%ff%")
@example("= ==")
def test_any_comment_can_be_read(comment: str) -> None:
    """Somebody else's comment gives facts or none, never an error."""
    assert isinstance(parse_comment(comment), dict)


def test_plain_facts_stay_readable() -> None:
    """What a person reads with `borg info` is plain text."""
    facts = {"v": "1", "vm": "web-2", "disks": "vda:1024,vdb:2048", "consistency": "agent"}
    assert render_comment(facts) == "v=1 vm=web-2 disks=vda:1024,vdb:2048 consistency=agent"
