"""Alerts through a real server and worker to a real receiver: bad runs, VMs that are not safe, a silent host."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load
from infra.process import run
from tasks.coverage import told_before
from tests.e2e.sources import MIB, Sources, disk
from tests.e2e.webhook import Receiver, receiving
from tests.e2e.worker import Worker
from tests.guests import Guest

pytestmark = pytest.mark.e2e

TOKEN = "a-token-of-the-test-suite"
SECRET_PATH = "/hook-of-the-test-suite"
ELSEWHERE = ["[!a]*", "a[!l]*", "al[!e]*"]
NEVER, SHARED = "alerted-never", "alerted-shared"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Who is told."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def worker(
    host: Sources, receiver: Receiver, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """A worker of this host, whose alerts go to the receiver; its schedules are off."""
    secrets = {"url": f"{receiver.url}{SECRET_PATH}", "token": TOKEN, "ping": f"{receiver.url}/ping"}
    for name, secret in secrets.items():
        path = host.site.root / name
        path.touch(mode=0o600)
        path.write_text(secret, encoding="utf-8")
    files = {name: {"file": str(host.site.root / name)} for name in secrets}
    settings = json.loads(host.site.config.read_text(encoding="utf-8"))
    settings["vms"]["exclude"] = ELSEWHERE
    settings["alerts"] = {
        "receivers": {"ops": {"url": files["url"], "token": files["token"]}},
        "ping": files["ping"],
        "silent": "15s",
    }
    host.site.config.write_text(json.dumps(settings), encoding="utf-8")
    with Worker(prefect_server, host.site.config, tmp_path_factory.mktemp("worker")).serving() as serving:
        serving.unschedule()
        yield serving
        settings["alerts"] = {}
        host.site.config.write_text(json.dumps(settings), encoding="utf-8")
        serving.deploy()  # its automations and receivers go


@pytest.mark.usefixtures("worker")
def test_everybody_gets_the_test(host: Sources, receiver: Receiver) -> None:
    """`vmborg alerts test` reaches receiver and watchdog through the server, and says so."""
    said = host.site.ok("alerts", "test")
    assert said == {"receivers": [{"name": "ops", "problem": ""}, {"name": "ping", "problem": ""}]}
    got = receiver.wait("test of vmborg's alerts", path=SECRET_PATH)
    assert got.token == f"Bearer {TOKEN}"
    receiver.wait(path="/ping")


@pytest.mark.usefixtures("worker")
def test_a_receiver_that_refuses_is_named(host: Sources, receiver: Receiver) -> None:
    """When it does not take the test, the call fails and says which one."""
    receiver.status = 500
    try:
        call = host.site.vmborg("--json", "alerts", "test")
    finally:
        receiver.status = 200
    assert call.code == 1
    problems = {each["name"]: each["problem"] for each in call.document["receivers"]}
    assert "500" in problems["ops"]
    assert "500" in problems["ping"]


def test_a_bad_run_is_told(worker: Worker, host: Sources, receiver: Receiver) -> None:
    """Failed, Partial and Crashed runs are told with flow, VM and reason, and none of their parameters."""
    more = disk("vdb", host.image("alerted.raw", "raw"), "raw", more="<shareable/>", driver="cache='none'")
    host.define(SHARED, disk("vda", host.image("alerted.qcow2", fill=1)), more)
    worker.start("backup-vm", vm="alerted-nowhere")
    worker.start("backup-vm", vm=SHARED)
    failed = receiver.wait("backup-vm alerted-nowhere Failed", path=SECRET_PATH, timeout=120)
    assert "There is no domain" in str(failed)
    got = receiver.wait(f"backup-vm {SHARED} Partial", path=SECRET_PATH, timeout=120)
    assert "vdb" in str(got)
    assert str(host.site.config) not in str(got)
    crashed = worker.start("reconcile")
    worker.dashboard.set_state(crashed, "CRASHED")
    receiver.wait(f"reconcile {worker.dashboard.run(crashed)['name']} Crashed", path=SECRET_PATH)


def configure(host: Sources, *, defaults: dict[str, Any] | None = None, **sections: Any) -> None:
    """Set sections of the configuration, and keys of vms.defaults."""
    settings = json.loads(host.site.config.read_text(encoding="utf-8"))
    settings["vms"]["defaults"] |= defaults or {}
    host.site.config.write_text(json.dumps(settings | sections), encoding="utf-8")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=32m", "vmborg-small", str(place)], timeout=20)
    try:
        yield place
    finally:
        run(["umount", str(place)], timeout=20)


def look(worker: Worker, host: Sources, *guests: Guest) -> set[str]:
    """A run of coverage; those of these VMs that it leaves as not safe. Other tests' VMs are on the same libvirtd."""
    worker.dashboard.wait_state(worker.start("coverage"), "COMPLETED", timeout=60)
    told = told_before(load(host.site.config).state)
    return {guest.name for guest in guests if f"vm:{guest.uuid}" in told}


def test_a_vm_that_is_not_safe_is_told_once(worker: Worker, host: Sources, receiver: Receiver) -> None:
    """One never backed up is told, not again while that is so, and no more once it has its archive; each look pings."""
    guest = host.define(NEVER, disk("vda", host.image("alerted-never.qcow2", fill=1)))
    before = receiver.pings()
    assert look(worker, host, guest) == {NEVER}
    assert "never backed up" in str(receiver.wait(NEVER, "is not safe", path=SECRET_PATH))
    assert look(worker, host, guest) == {NEVER}
    host.backup(NEVER)
    assert look(worker, host, guest) == set()
    assert receiver.count(NEVER, "is not safe") == 1
    assert receiver.pings() == before + 3


def test_too_old_and_too_full_are_told(worker: Worker, host: Sources, receiver: Receiver, small_disk: Path) -> None:
    """A VM whose last archive has become older than its objective is told; so is a repository that is filling up."""
    before = json.loads(host.site.config.read_text(encoding="utf-8"))
    small = {"location": str(small_disk / "repository"), "encryption": "none"}
    configure(host, defaults={"objective": "1s"}, repositories=before["repositories"] | {"small": small})
    try:
        host.site.ok("init")
        (small_disk / "neighbour").write_bytes(bytes(29 * MIB))
        look(worker, host)
    finally:
        host.site.config.write_text(json.dumps(before), encoding="utf-8")
    receiver.wait(NEVER, "is not safe", "older than its objective", path=SECRET_PATH)
    full = receiver.wait("repository small", "is not safe", path=SECRET_PATH)
    assert re.search(r"only \d %", str(full)), full


def test_a_host_of_which_nothing_is_heard_is_told(worker: Worker, host: Sources, receiver: Receiver) -> None:
    """When no coverage follows the last one in time, the server says that the host is silent."""
    look(worker, host)
    receiver.wait("testhost is silent", path=SECRET_PATH, timeout=90)


@pytest.mark.usefixtures("worker")
def test_no_secret_is_seen(host: Sources, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Address and token are in no database, log or file that vmborg or Prefect wrote."""
    seen = [path for path in tmp_path_factory.getbasetemp().rglob("*") if path.is_file()]
    seen += [path for path in (host.site.root / "state").rglob("*") if path.is_file()]
    assert any(path.name == "prefect.db" for path in seen)
    holding = [
        path for path in seen if any(word in path.read_bytes() for word in (TOKEN.encode(), SECRET_PATH.encode()))
    ]
    assert holding == []
