"""A person at a terminal sees how far a pull is."""

import os
import re
import threading

import pytest

from infra.process import spawn
from tasks.progress import Progress, listening
from tests.integration.dumps.place import Place
from tests.integration.dumps.taking import take
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.integration

MIB = 1024**2


def test_a_pull_tells_how_much_has_come(place: Place) -> None:
    """Each source tells its bytes while they come, against what it gave last time; nothing is known the first time."""
    sizes = {"a": 6 * MIB, "b": 3 * MIB}
    place.configure(
        [
            {"kind": "command", "name": name, "command": f"head -c {count} /dev/zero; sleep 0.3; printf x"}
            for name, count in sizes.items()
        ]
    )
    for expected in ({"a": 0, "b": 0}, {name: count + 1 for name, count in sizes.items()}):
        told: list[Progress] = []
        with listening(told.append):
            take(place)
        for name, count in sizes.items():
            mine = [each for each in told if each.path == name]
            assert {(each.source, each.total) for each in mine} == {("db", expected[name])}
            done = [each.done for each in mine]
            assert done == sorted(done)
            assert done[-1] == count + 1
            assert len(done) > 1


def test_a_terminal_shows_a_bar(place: Place) -> None:
    """`vmborg dumps pull` on a terminal draws one bar with host, source and bytes, and no line of a log."""
    place.initialise()
    place.configure([{"kind": "command", "name": "big", "command": f"head -c {5 * MIB} /dev/zero"}])
    take(place)
    ours, theirs = os.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while block := os.read(ours, 4096):
                seen.extend(block)
        except OSError:  # EIO: the last one that had the terminal is gone
            return

    reader = threading.Thread(target=read)
    reader.start()
    environment = {"TERM": "xterm", "COLUMNS": "120"}
    with os.fdopen(theirs, "wb", buffering=0) as terminal:
        argv = [str(VMBORG), "--config", str(place.config), "dumps", "pull", "db"]
        with spawn(argv, stderr=terminal, env=environment) as child:
            code = child.wait(180)
    reader.join()
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert code == 0, shown
    assert re.search(r"db: big .*5\.0/5\.0 MiB", shown), shown
    assert "INFO" not in shown
