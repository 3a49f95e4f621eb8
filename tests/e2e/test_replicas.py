"""One backup into two repositories: each stands for itself, and the guest waits no longer than for one."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.borg.client import Repository
from infra.config.load import load
from infra.process import spawn
from tasks.repositories import open_repository
from tests.e2e.checks import sources
from tests.e2e.dashboard import Dashboard
from tests.e2e.held import gone, hold_borg
from tests.e2e.sources import MIB, Sources, disk
from tests.guests import Guest, wait_for
from tests.integration.bare import image_holds
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.e2e

VM = "replicated"
IMAGE = "replicated.raw"
REPLICA = "second"
UNFINISHED = ".unfinished"


@pytest.fixture(scope="module")
def guest(host: Sources) -> Guest:
    """A running VM whose archives go to two repositories."""
    image = host.folder / IMAGE
    image.write_bytes(b"\7" * MIB + os.urandom(23 * MIB))
    configure(host, replicas=[REPLICA])
    host.site.ok("init")
    guest = host.define(VM, disk("vda", image, "raw")).start()
    assert host.backup(VM)[VM]["state"] == "complete"
    return guest


def configure(host: Sources, **policy: Any) -> None:
    """Name a second repository in the configuration; `policy` are keys of vms.defaults that differ."""
    document = json.loads(host.site.config.read_text(encoding="utf-8"))
    main = document["repositories"]["main"]
    document["repositories"][REPLICA] = main | {"location": str(places(host)[REPLICA])}
    document["vms"]["defaults"] |= policy
    host.site.config.write_text(json.dumps(document), encoding="utf-8")


@contextmanager
def policy(host: Sources, **keys: Any) -> Iterator[None]:
    """In the block these keys of vms.defaults differ."""
    before = host.site.config.read_text(encoding="utf-8")
    configure(host, **keys)
    try:
        yield
    finally:
        host.site.config.write_text(before, encoding="utf-8")


def places(host: Sources) -> dict[str, Path]:
    """Where the repositories are, by name."""
    return {"main": host.site.repository_path, REPLICA: host.site.root / REPLICA}


@contextmanager
def missing(place: Path) -> Iterator[None]:
    """In the block the repository is not there, as without its disk."""
    aside = place.with_name(place.name + ".aside")
    place.rename(aside)
    try:
        yield
    finally:
        aside.rename(place)


def repository(host: Sources, name: str) -> Repository:
    """One of the two."""
    return open_repository(load(host.site.config), name)


def archives(host: Sources) -> dict[str, list[str]]:
    """Every archive of both, oldest first."""
    return {name: [each.name for each in repository(host, name).archives()] for name in places(host)}


def errors(outcome: Mapping[str, Any]) -> dict[str, str]:
    """The class of the error of each repository that has no archive."""
    return {each["repository"]: each["error"]["type"] for each in outcome["result"]["repositories"] if each["error"]}


def test_both_have_the_archive_and_each_restores(host: Sources, guest: Guest, tmp_path: Path) -> None:
    """One run makes the same archive in both; `list` shows both, and the image comes back from either."""
    outcome = host.backup(VM)[VM]
    assert (outcome["state"], errors(outcome)) == ("complete", {})
    name = outcome["result"]["archive"]
    assert {each["repository"] for each in host.archives(VM) if each["archive"] == name} == {"main", REPLICA}
    for place in places(host):
        folder = tmp_path / place
        options = ("--files-only", "--to", folder, "--repository", place)
        restored = host.site.ok("restore", *options, "--", VM)
        assert (restored["repository"], restored["archive"]) == (place, name)
        assert image_holds(restored["disks"]["vda"], "raw", 7, offset=0)
    host.assert_on_bases(guest, {"vda": str(host.folder / IMAGE)})


def test_the_other_verbs_know_both(host: Sources, guest: Guest) -> None:
    """`status`, `doctor`, `check` and `prune` speak of each repository."""
    status = host.site.vmborg("--json", "status").document["vms"]
    assert [each["text"] for each in status if each["vm"] == VM] == ["backed up"]
    told = host.site.vmborg("doctor", guest.name).stdout
    assert "repository main" in told
    assert f"repository {REPLICA}" in told
    for verb in (("check",), ("prune", "--dry-run")):
        assert [each["repository"] for each in host.site.ok(*verb)["repositories"]] == ["main", REPLICA]


@pytest.mark.parametrize(("lost", "kept"), [(REPLICA, "main"), ("main", REPLICA)])
def test_one_that_is_missing_does_not_lose_the_other(host: Sources, guest: Guest, lost: str, kept: str) -> None:
    """The run is partial with the error of the one that is missing; the other has the archive; the VM is back."""
    before = archives(host)
    with missing(places(host)[lost]):
        outcome = host.backup(VM, code=3)[VM]
        run = Dashboard(host.api).last_run(VM)
    assert (outcome["state"], outcome["result"]["repository"]) == ("partial", kept)
    assert errors(outcome) == {lost: "RepositoryNotFound"}
    assert (run["state_name"], lost in run["state"]["message"]) == ("Partial", True)
    assert archives(host) == before | {kept: [*before[kept], outcome["result"]["archive"]]}
    host.assert_on_bases(guest, {"vda": str(host.folder / IMAGE)})


def test_a_restore_names_the_replica(host: Sources, guest: Guest) -> None:
    """When the VM's own repository cannot be read, the error says which replica may be."""
    with missing(places(host)["main"]):
        call = host.site.vmborg("restore", guest.name, "--as", "nobody")
    assert call.code == 1
    assert f"--repository {REPLICA}" in call.voices()[2]


def test_a_restore_finds_what_only_replicas_have(host: Sources, guest: Guest, tmp_path: Path) -> None:
    """Where the VM's own repository answers and has no archive of it, the first replica is taken without a question."""
    newest = archives(host)[REPLICA][-1]
    with policy(host, repository="new", replicas=[REPLICA, "main"]):
        document = json.loads(host.site.config.read_text(encoding="utf-8"))
        document["repositories"]["new"] = document["repositories"]["main"] | {"location": str(tmp_path / "new")}
        host.site.config.write_text(json.dumps(document), encoding="utf-8")
        host.site.ok("init")
        restored = host.site.ok("restore", guest.name, "--files-only", "--to", tmp_path / "restored")
    assert (restored["repository"], restored["archive"]) == (REPLICA, newest)


def test_without_any_the_backup_fails_before_the_guest_is_touched(host: Sources, guest: Guest) -> None:
    """With both gone the run is Failed with the error of the first, and took no snapshot."""
    with missing(places(host)["main"]), missing(places(host)[REPLICA]):
        outcome = host.backup(VM, code=1)[VM]
        dashboard = Dashboard(host.api)
        steps = [each["name"] for each in dashboard.tasks(dashboard.last_run(VM))]
    assert outcome["error"]["type"] == "RepositoryNotFound"
    assert steps == ["recover", "inspect", "preflight", f"preflight {REPLICA}"]
    host.assert_on_bases(guest, {"vda": str(host.folder / IMAGE)})


def test_one_that_hangs_leaves_the_other_its_time(host: Sources, guest: Guest) -> None:
    """A copy that stands still is ended at its share of create_deadline, and the other archive is made within it."""
    deadline = 24
    with policy(host, create_deadline=f"{deadline}s"), ThreadPoolExecutor(1) as pool:
        backup = pool.submit(host.backup, VM, code=3)
        borg = hold_borg(places(host)["main"], host.folder / IMAGE)
        wait_for(lambda: gone(borg), timeout=deadline, what="the end of its share")
        outcome = backup.result()[VM]
    dashboard = Dashboard(host.api)
    create = dashboard.task(dashboard.last_run(VM), "create")
    assert errors(outcome) == {"main": "WindowExceeded"}
    assert outcome["result"]["repository"] == REPLICA
    assert create["total_run_time"] < deadline
    assert not [name for found in archives(host).values() for name in found if name.endswith(UNFINISHED)]
    host.assert_on_bases(guest, {"vda": str(host.folder / IMAGE)})


def test_a_killed_run_leaves_nothing_in_either(host: Sources, guest: Guest) -> None:
    """kill -9 while the second archive is made: recover puts the VM back and deletes what both repositories hold."""
    before = archives(host)
    argv = ["env", "--default-signal", str(VMBORG), "--config", str(host.site.config), "backup", VM]
    with spawn(argv, env={"PREFECT_API_URL": host.api}, own_session=True) as run:
        borg = hold_borg(places(host)[REPLICA], host.folder / IMAGE)
        os.kill(run.pid, signal.SIGKILL)
        run.wait(30)
    wait_for(lambda: gone(borg), timeout=30, what="borg's end with its parent")
    assert sources(guest) != {"vda": str(host.folder / IMAGE)}
    assert [name for name in archives(host)["main"] if name.endswith(UNFINISHED)]
    told = host.site.ok("recover")["recovered"][0]["actions"]
    host.assert_on_bases(guest, {"vda": str(host.folder / IMAGE)})
    assert archives(host) == before
    assert any(action.endswith(f"{UNFINISHED} in main") for action in told), told
    assert host.backup(VM)[VM]["state"] == "complete"
