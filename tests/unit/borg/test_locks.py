"""Who holds a lock, as far as the lock tells."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.borg.locks import holders


def _message(lock: Path) -> str:
    return f"Failed to create/acquire the lock {lock} (timeout)."


def test_writer_and_readers(tmp_path: Path) -> None:
    """The one writer and every reader are named by process and host."""
    lock = tmp_path / "lock.exclusive"
    lock.mkdir()
    (lock / "kvm1.example.org@1234567890.4711-7f00").touch()
    roster = {"shared": [["kvm2@99", 815, 0]], "exclusive": [["kvm1@1", 1, 0]]}
    (tmp_path / "lock.roster").write_text(json.dumps(roster))
    assert holders(_message(lock)) == [
        "held by process 4711 on kvm1.example.org",
        "held by process 815 on kvm2",
    ]


def test_nobody_is_told(tmp_path: Path) -> None:
    """A lock that is gone, out of our sight, or no lock at all has no holders that we know."""
    assert holders(_message(tmp_path / "lock.exclusive")) == []
    assert holders("Failed to create/acquire the lock ssh://host/x (timeout).") == []
    assert holders("something else") == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"shared": 1}', '{"shared": [1, []]}', '"x"', '{"shared": {}}'])
def test_garbage_is_nobody(tmp_path: Path, text: str) -> None:
    """A roster that cannot be read names nobody, and nothing is raised."""
    (tmp_path / "lock.exclusive").mkdir()
    (tmp_path / "lock.exclusive" / "no-holder").touch()
    (tmp_path / "lock.roster").write_text(text)
    assert holders(_message(tmp_path / "lock.exclusive")) == []


@given(st.text(max_size=200))
def test_any_message_is_harmless(message: str) -> None:
    """No message raises anything."""
    assert isinstance(holders(message), list)
