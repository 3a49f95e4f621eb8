"""`make dashboard`, as somebody uses it who wants to see vmborg at work."""

import os
import signal
import sys
from pathlib import Path

import pytest

from infra.process import spawn
from tests.dashboard.__main__ import STATE, libvirtd_folder
from tests.e2e.held import command, numbers
from tests.e2e.worker import CHECKOUT
from tests.guests import wait_for

pytestmark = pytest.mark.e2e


def test_a_schedule_starts_a_backup_within_a_minute_and_nothing_is_left(tmp_path: Path) -> None:
    """A scheduled run begins by itself within a minute, is Completed with archives; after Ctrl-C all is as before."""
    log = tmp_path / "log"
    words = ["env", "--default-signal", sys.executable, "-m", "tests.dashboard"]
    with log.open("wb") as output, spawn(words, cwd=str(CHECKOUT), stdout=output, stderr=output) as running:

        def told() -> str:
            text = log.read_text(encoding="utf-8")
            assert running.poll() is None, text
            return text if "Ctrl-C ends it" in text else ""

        text = wait_for(told, timeout=420, what="the first backup", interval=0.5)
        folder = libvirtd_folder()
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(90) == 0, log.read_text(encoding="utf-8")
    assert int(text.partition("after ")[2].partition(" s the schedule")[0]) <= 60
    assert "all VMs on demo-host: Completed, 2 of 2 VMs complete" in text
    assert "the server's log holds no error of the scheduler" in text
    assert folder is not None
    assert not folder.exists()
    assert not STATE.exists()
    running_still = [" ".join(command(pid)) for pid in numbers()]
    assert [line for line in running_still if str(STATE) in line] == []
