"""Pulls that are cut off, killed, too slow, at once, or at another time than the clock says."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from infra.dumps.manifest import render
from infra.errors import ConnectionLost, DumpBusy
from infra.process import spawn
from tasks.dumps.sources import dump_source
from tests.guests import wait_for
from tests.integration.dumps.place import Place
from tests.integration.dumps.taking import job_of, store, take
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.integration

WAIT = "echo begin; sleep 100"


def _cut_when_it_came(place: Place, cut: Callable[[], None]) -> None:
    wait_for(
        lambda: [path for path in (place.state / "dumps" / "db").glob("tree.*.making/dumps/*") if path.stat().st_size],
        timeout=30,
        what="the first bytes",
    )
    cut()


def test_a_cut_connection_is_transient(place: Place) -> None:
    """A connection that is cut in mid-dump is ConnectionLost, may be tried again, and leaves no file."""
    place.configure([{"kind": "command", "command": "echo begin; sleep 30; echo end"}])
    cutter = threading.Thread(target=_cut_when_it_came, args=(place, place.ssh.cut))
    cutter.start()
    with job_of(place) as job, pytest.raises(ConnectionLost) as caught:
        dump_source.fn(job, job.host.sources[0])
    cutter.join()
    assert caught.value.transient
    assert list((place.state / "dumps" / "db").glob("tree.*")) == []


def test_silence_is_given_up(place: Place) -> None:
    """A dump of which no byte comes for stall_timeout is given up as ConnectionLost."""
    place.configure([{"kind": "command", "command": "echo begin; sleep 60"}], stall_timeout="1s")
    begun = time.monotonic()
    with job_of(place) as job, pytest.raises(ConnectionLost, match="lost") as caught:
        dump_source.fn(job, job.host.sources[0])
    assert "no byte within 1 s" in caught.value.evidence
    assert time.monotonic() - begun < 20


def test_a_lost_connection_is_tried_again(place: Place, folder: Path) -> None:
    """The flow repeats a source whose connection was lost, and the second attempt's dump is the one that counts."""
    marker = folder / "second"
    marker.unlink(missing_ok=True)
    script = f"test -e {marker} && echo whole || {{ touch {marker}; echo half; kill -9 $PPID; sleep 30; }}"
    place.configure([{"kind": "command", "command": script}])
    entry = place.pull()
    assert entry["state"] == "complete"
    assert (place.latest / "command.dump").read_text() == "whole\n"


def test_two_pulls_of_one_host_exclude_each_other(place: Place) -> None:
    """The second pull of a host fails with DumpBusy, naming who holds it; the first is not disturbed."""
    place.configure([{"kind": "command", "command": "echo whole"}])
    with job_of(place) as job:
        with pytest.raises(DumpBusy) as caught:
            take(place)
        assert f"pid {os.getpid()}" in caught.value.evidence
        assert dump_source.fn(job, job.host.sources[0]).good


def test_a_clock_that_jumped_changes_nothing(place: Place) -> None:
    """After a last pull from the future everything is pulled, compared and archived as ever; status tells."""
    place.configure([{"kind": "command", "command": "echo whole"}, {"kind": "files", "paths": [str(place.ssh.root)]}])
    store(place)
    manifest = place.manifest()
    later = manifest.started + timedelta(days=400)
    dumps = [
        source.model_copy(update={"dumps": tuple(d.model_copy(update={"taken": later}) for d in source.dumps)})
        for source in manifest.sources
    ]
    future = manifest.model_copy(update={"started": later, "sources": tuple(dumps)})
    (place.latest / "manifest.json").write_text(render(future))
    wait_for(lambda: int(time.time()) > manifest.started.timestamp(), timeout=5, what="another second")
    store(place)
    assert place.manifest().started < later
    assert place.manifest().good


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_pull_at_once(place: Place, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a pull that waits for bytes (128 + N): nothing is archived, nothing of it is left."""
    place.initialise()
    place.configure(
        [{"kind": "command", "name": "fast", "command": "echo whole"}, {"kind": "command", "command": WAIT}]
    )
    argv = ["env", "--default-signal", str(VMBORG), "--config", str(place.config), "dumps", "pull", "db"]
    server = {"PREFECT_API_URL": place.api}
    with (place.root / "said").open("w+b") as said, spawn(argv, env=server, stdout=said, stderr=said) as child:
        made = place.state / "dumps" / "db"
        wait_for(lambda: list(made.glob("tree.*.making/dumps/command.dump")), timeout=120, what="the second source")
        os.kill(child.pid, number)
        assert child.wait(60) == 128 + number
    text = (place.root / "said").read_text()
    assert "Traceback" not in text
    assert f"Ended by {number.name}" in text
    assert [path.name for path in made.iterdir()] == ["host_key"]
    assert place.archives() == []


def test_a_killed_pull_leaves_no_archive(place: Place) -> None:
    """A pull that is killed leaves no archive that counts; the next one removes what it left."""
    place.initialise()
    place.configure([{"kind": "command", "command": "head -c 100000000 /dev/urandom"}])
    argv = ["dumps", "pull", "db"]
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(place.run, *argv)
        creating = wait_for(lambda: _borg_create(place), timeout=180, what="borg create", interval=0.005)
        creating.suspend()
        parent = creating.parent()
        assert parent is not None
        parent.send_signal(signal.SIGKILL)
        assert pulling.result().code == -signal.SIGKILL
    place.configure([{"kind": "command", "command": "echo small", "floor": 0}])
    store(place)
    assert [name for name in place.archives() if name.endswith(".unfinished")] == []
    assert len(list((place.state / "dumps" / "db").glob("tree.*"))) == 1


def _borg_create(place: Place) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "create" in words and any(word.startswith(str(place.root / "repository")) for word in words):
            return process
    return None
