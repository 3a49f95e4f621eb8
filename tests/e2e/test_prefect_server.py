"""What a person sees of backups in Prefect's dashboard, and what nobody may see there."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from infra.borg.command import binary
from infra.process import spawn
from tasks.progress import ARTIFACT_INTERVAL_S
from tests.e2e.checks import sources
from tests.e2e.dashboard import Dashboard, Row, moment
from tests.e2e.held import children, command, descendants, environment, hold_borg, let_go
from tests.e2e.site import PASSPHRASE
from tests.e2e.sources import MIB, Sources, disk
from tests.guests import Guest, wait_for
from tests.integration.vmborg import Call

pytestmark = pytest.mark.e2e

STEPS = ["recover", "inspect", "preflight", "snapshot", "create", "pivot", "verify", "report"]
VM = "watched"
BIG = 384 * MIB


@dataclass
class Watched:
    """One backup, observed from its first second to its last."""

    run: Row
    call: Call
    updates: list[datetime] = field(default_factory=list)  # of the progress artifact, while borg read
    seen: list[str] = field(default_factory=list)  # command lines and environments of vmborg and all below it


@pytest.fixture(scope="module")
def dashboard(prefect_server: str) -> Dashboard:
    """The server that the backups run against."""
    return Dashboard(prefect_server)


@pytest.fixture(scope="module")
def guest(host: Sources) -> Guest:
    """A running VM whose disk takes borg a while."""
    image = host.folder / "watched.raw"
    with image.open("wb") as file:
        for _ in range(BIG // MIB):
            file.write(os.urandom(MIB))
    return host.define(VM, disk("vda", image, "raw")).start()


@pytest.fixture(scope="module")
def watched(host: Sources, guest: Guest, dashboard: Dashboard) -> Watched:
    """A complete backup of the VM, held twice for longer than the progress artifact's interval."""
    image = host.folder / "watched.raw"
    bases = sources(guest)
    with ThreadPoolExecutor(1) as pool:
        backup = pool.submit(host.site.vmborg, "--json", "backup", VM)
        borg = hold_borg(host.site.repository_path, image)
        run = dashboard.wait_run(VM)
        found = Watched(run, Call(-1, "", ""))
        for _ in range(2):
            _look_while_held(dashboard, found, borg)
        let_go(borg)
        found.call = backup.result()
    found.run = dashboard.run(run["id"])
    assert found.call.code == 0, found.call.stderr
    host.assert_on_bases(guest, bases)
    return found


def _look_while_held(dashboard: Dashboard, found: Watched, borg: int) -> None:
    """Sample all processes of the run; then let borg go on until the artifact moves, and stop it again."""
    for pid in descendants(os.getpid()):
        if "vmborg" in " ".join(command(pid)) or "borg" in " ".join(command(pid)):
            found.seen += [" ".join(command(pid)), environment(pid)]
    held_until = time.monotonic() + ARTIFACT_INTERVAL_S
    before = wait_for(lambda: dashboard.artifact(found.run, "progress"), timeout=20, what="progress artifact")
    wait_for(lambda: time.monotonic() > held_until, timeout=10, what="the interval")
    let_go(borg)

    def moved() -> Row | None:
        now = dashboard.artifact(found.run, "progress")
        return now if now and now["updated"] != before["updated"] else None

    after = wait_for(moved, timeout=30, what="progress", interval=0.02)
    found.updates.append(moment(after["updated"]))
    os.kill(borg, signal.SIGSTOP)


def test_the_run_is_named_after_the_vm_and_its_steps_follow_the_design(watched: Watched, dashboard: Dashboard) -> None:
    """One flow run with the VM's name, Completed, with each step once, in order, Completed, under its plain name."""
    assert watched.run["name"] == VM
    assert watched.run["state_name"] == "Completed"
    archive = watched.call.document["backups"][0]["result"]["archive"]
    assert watched.run["state"]["message"] == f"Archive {archive}"
    tasks = dashboard.tasks(watched.run)
    assert [task["name"] for task in tasks] == STEPS
    assert {task["state_name"] for task in tasks} == {"Completed"}
    assert set(watched.run["parameters"]) == {"vm", "config"}


def test_the_lines_of_every_layer_reach_the_run(watched: Watched, dashboard: Dashboard) -> None:
    """Log lines of tasks and of infra are the run's, each once and told by the step that it belongs to."""
    lines = dashboard.logs(watched.run)
    loggers = {line["name"] for line in lines}
    assert {"vmborg.backup", "vmborg.recovery"} <= loggers
    ours = [line["message"] for line in lines if line["name"].startswith("vmborg")]
    assert len(ours) == len(set(ours))
    pivot = dashboard.task(watched.run, "pivot")
    assert any("vda" in line["message"] for line in lines if line["task_run_id"] == pivot["id"])
    assert not [line for line in lines if line["level"] >= 40]


def test_the_progress_artifact_moves_at_most_every_five_seconds(watched: Watched, dashboard: Dashboard) -> None:
    """While borg reads, updates of the progress artifact are at least five seconds apart; it ends at 100 %."""
    first, second = watched.updates
    assert (second - first).total_seconds() >= ARTIFACT_INTERVAL_S
    artifact = dashboard.artifact(watched.run, "progress")
    assert artifact
    assert artifact["data"] == 100
    assert VM in artifact["description"]


def test_the_result_artifact_is_a_table_a_disk_a_row(watched: Watched, dashboard: Dashboard) -> None:
    """The run's table names disk, size, read, stored, frozen ms, consistency and how; its text names the archive."""
    artifact = dashboard.artifact(watched.run, "table")
    assert artifact
    rows = json.loads(artifact["data"])
    assert [list(row) for row in rows] == [["disk", "size", "read", "stored", "frozen ms", "consistency", "how"]]
    assert rows[0]["disk"] == "vda"
    assert rows[0]["size"] == rows[0]["read"] == "384.0 MiB"
    assert rows[0]["stored"].startswith("38")
    assert rows[0]["consistency"] == "crash"
    assert rows[0]["how"] == "whole: a raw image keeps no dirty bitmap"
    assert watched.call.document["backups"][0]["result"]["archive"] in artifact["description"]


def test_the_passphrase_is_seen_nowhere(
    watched: Watched, host: Sources, dashboard: Dashboard, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is in no argv and no environment of the run's processes, in no database, log, artifact or output."""
    assert any(re.search(r"/borg .*create", text) for text in watched.seen)
    assert any("BORG_PASSPHRASE_FD" in text for text in watched.seen)
    assert not [text for text in watched.seen if PASSPHRASE in text]
    databases = list(tmp_path_factory.getbasetemp().rglob("prefect.db*"))
    assert any(VM.encode() in path.read_bytes() for path in databases)
    state = [path for path in (host.site.root / "state").rglob("*") if path.is_file()]
    assert not [path for path in [*databases, *state] if PASSPHRASE.encode() in path.read_bytes()]
    told = json.dumps([dashboard.logs(watched.run), watched.run, watched.call.stdout, watched.call.stderr])
    assert PASSPHRASE not in told


def test_a_wrong_passphrase_is_tried_once_and_told_in_three_voices(
    host: Sources, guest: Guest, dashboard: Dashboard
) -> None:
    """An error that stays is not retried; the run is Failed, its message says what failed, why, and what to do."""
    secret = host.site.root / "passphrase"
    secret.write_text("not it", encoding="utf-8")
    try:
        call = host.site.vmborg("--json", "backup", VM)
    finally:
        secret.write_text(f"{PASSPHRASE}\n", encoding="utf-8")

    error = call.document["backups"][0]["error"]
    run = dashboard.last_run(VM)
    assert error["type"] == "PassphraseWrong"
    assert run["state_name"] == "Failed"
    for voice in (error["brief"], error["evidence"].splitlines()[0], error["remedy"]):
        assert voice in run["state"]["message"]
    preflight = dashboard.task(run, "preflight")
    assert preflight["run_count"] == 1
    assert "Retrying" not in dashboard.history(preflight)
    assert [task["name"] for task in dashboard.tasks(run)] == ["recover", "inspect", "preflight"]
    lines = [line["message"] for line in dashboard.logs(run)]
    assert not [line for line in lines if "Traceback" in line or 'File "/' in line]
    assert guest.state() == "running"


def test_a_disk_that_is_not_covered_makes_the_run_partial(host: Sources, dashboard: Dashboard) -> None:
    """A good archive without one of the writable disks is a Failed run named Partial that names the disk and why."""
    name = "watched-partial"
    shared = disk("vdb", host.image("shared.raw", "raw"), "raw", more="<shareable/>", driver="cache='none'")
    host.define(name, disk("vda", host.image("partial.qcow2", fill=1)), shared)
    result = host.backup(name, code=3)[name]["result"]
    run = dashboard.last_run(name)
    assert run["state_type"] == "FAILED"
    assert run["state_name"] == "Partial"
    assert "vdb" in run["state"]["message"]
    assert "shared with other guests" in run["state"]["message"]
    table = dashboard.artifact(run, "table")
    assert table
    assert "Not covered" in table["description"]
    assert [each["archive"] for each in host.archives(name)] == [result["archive"]]


def test_a_locked_repository_is_tried_again(host: Sources, dashboard: Dashboard) -> None:
    """While another borg holds the repository the step waits, fails as transient and is tried again: Completed."""
    name = "watched-locked"
    host.define(name, disk("vda", host.image("locked.qcow2", fill=1)))
    with ThreadPoolExecutor(1) as pool, locked(host) as unlock:
        backup = pool.submit(host.backup, name)
        run = dashboard.wait_run(name)

        def waiting() -> bool:
            return any(task["state_name"] == "AwaitingRetry" for task in dashboard.tasks(run))

        wait_for(waiting, timeout=60, what="a retry", interval=0.3)
        unlock()
        assert backup.result()[name]["state"] == "complete"
    preflight = dashboard.task(run, "preflight")
    assert preflight["run_count"] == 2
    assert preflight["state_name"] == "Completed"
    assert any("locked by another borg" in line["message"] for line in dashboard.logs(run))


@contextmanager
def locked(host: Sources) -> Iterator[Callable[[], None]]:
    """The repository, held by a real borg until the function is called."""
    target = host.site.repository.target
    held = host.folder / "held"
    hold = f"touch {held} && exec tail -f /dev/null"
    command = [binary(), "with-lock", target.location, "sh", "-c", hold]
    secrets = {"BORG_PASSPHRASE_FD": PASSPHRASE}
    with spawn(command, env={"BORG_BASE_DIR": str(target.base_dir)}, secrets=secrets) as borg:
        wait_for(held.exists, timeout=60, what="the lock")

        def unlock() -> None:
            for pid in children(borg.pid):
                os.kill(pid, signal.SIGTERM)
            borg.wait(30)

        yield unlock
