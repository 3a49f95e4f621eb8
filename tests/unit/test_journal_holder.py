"""Whoever holds a domain is told without disturbing it."""

import sys
from pathlib import Path

from infra.journal.holder import holder
from infra.journal.locks import domain_lock
from infra.process import spawn

UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
HOLD = """
import sys
from pathlib import Path
from infra.journal.locks import domain_lock
with domain_lock(Path(sys.argv[1]), sys.argv[2], "web"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_holder_is_named_while_it_lives(tmp_path: Path) -> None:
    """The holder's process is named as long as it holds the lock, and not when it is gone or was killed."""
    assert holder(tmp_path, UUID) == ""
    with spawn([sys.executable, "-c", HOLD, str(tmp_path), UUID], stdin=True) as child:
        assert child.stdout.readline() == "held\n"
        assert f"pid {child.pid} since" in holder(tmp_path, UUID)
        child.kill()
    assert holder(tmp_path, UUID) == ""


def test_asking_does_not_take_the_lock(tmp_path: Path) -> None:
    """While one asks, a run can take the lock, and one that holds it keeps it."""
    with domain_lock(tmp_path, UUID, "web"):
        assert holder(tmp_path, UUID)
        assert holder(tmp_path, "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a002") == ""
    with domain_lock(tmp_path, UUID, "web"):
        assert holder(tmp_path, UUID)
