"""Archives of dumps in two repositories: each stands for itself, and one that fails does not lose the other."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.borg.client import Repository
from infra.borg.names import UNFINISHED
from infra.config.load import load
from tasks.repositories import open_repository
from tests.e2e.held import borg_creating, gone
from tests.guests import wait_for
from tests.integration.dumps.place import Place

pytestmark = pytest.mark.integration

REPLICA = "second"


@pytest.fixture(name="two")
def installed(place: Place) -> Place:
    """An installation whose host `db` goes to two repositories, both there."""
    place.initialise()
    configure(place)
    replica(place).init()
    return place


def configure(place: Place, command: str = "date +%N; echo whole") -> None:
    """Name the replica, and the command whose output is the dump."""
    place.configure([{"kind": "command", "command": command}], replicas=[REPLICA])
    settings = json.loads(place.config.read_text())
    main = settings["repositories"]["main"]
    settings["repositories"][REPLICA] = main | {"location": str(place.root / REPLICA)}
    place.config.write_text(json.dumps(settings))


def replica(place: Place) -> Repository:
    """The second repository."""
    return open_repository(load(place.config), REPLICA)


def where(place: Place) -> dict[str, Path]:
    """The folder of each repository."""
    return {"main": place.root / "repository", REPLICA: place.root / REPLICA}


def archives(place: Place) -> dict[str, list[str]]:
    """What each of them holds."""
    found = {"main": place.repository, REPLICA: replica(place)}
    return {name: [each.name for each in repository.archives()] for name, repository in found.items()}


@contextmanager
def missing(folder: Path) -> Iterator[None]:
    """In the block the repository is not there, as without its disk."""
    aside = folder.with_name(folder.name + ".aside")
    folder.rename(aside)
    try:
        yield
    finally:
        aside.rename(folder)


def pull(place: Place, *options: str, code: int = 0) -> dict[str, Any]:
    """Pull; what is missing is not made. The host's entry of the document."""
    call = place.run("--json", "dumps", "pull", "db", *options)
    assert call.code == code, call.stderr
    entry: dict[str, Any] = call.document["pulls"][0]
    return entry


def errors(entry: dict[str, Any]) -> dict[str, str]:
    """The class of the error of each repository without an archive."""
    return {each["repository"]: each["error"]["type"] for each in entry["result"]["repositories"] if each["error"]}


def test_both_have_it_and_each_restores(two: Place) -> None:
    """One pull makes the same archive in both; list, status, check and prune know both, and either gives it back."""
    entry = pull(two)
    name = entry["result"]["archive"]
    assert (entry["state"], errors(entry), archives(two)) == ("complete", {}, {"main": [name], REPLICA: [name]})
    listed = two.run("--json", "dumps", "list", "db").document["archives"]
    assert [(each["archive"], each["repository"]) for each in listed] == [(name, "main"), (name, REPLICA)]
    for options in ((), ("--repository", REPLICA)):
        target = two.root / f"restored{len(options)}"
        call = two.run("--json", "dumps", "restore", "db", "command", "--to", target, *options)
        assert (call.code, call.document["repository"]) == (0, options[1] if options else "main")
        assert target.read_text() == (two.latest / "command.dump").read_text()
    assert [each["text"] for each in two.run("--json", "status").document["dumps"]] == ["pulled"]
    pruned = two.run("--json", "prune", "--dry-run").document["repositories"]
    fates = [(each["repository"], [row["rule"] for row in each["archives"]]) for each in pruned]
    assert fates == [("main", ["daily #1"]), (REPLICA, ["daily #1"])]
    checked = two.run("--json", "check").document["repositories"]
    read = [(each["repository"], [row["archive"] for row in each["samples"]], each["error"]) for each in checked]
    assert read == [("main", [name], None), (REPLICA, [name], None)]


@pytest.mark.parametrize(("lost", "kept"), [(REPLICA, "main"), ("main", REPLICA)])
def test_one_that_is_missing_does_not_lose_the_other(two: Place, lost: str, kept: str) -> None:
    """The pull is partial (exit 3) with the error of the one that is missing; the other has the archive."""
    with missing(where(two)[lost]):
        entry = pull(two, code=3)
        refused = two.run("dumps", "restore", "db", "command", "--to", two.root / "x")
    name = entry["result"]["archive"]
    assert (entry["state"], entry["result"]["repository"], errors(entry)) == (
        "partial",
        kept,
        {lost: "RepositoryNotFound"},
    )
    assert archives(two) == {kept: [name], lost: []}
    if lost == "main":  # the newest that a replica has may be older, so it is taken by name only
        assert (refused.code, f"--repository {REPLICA}" in refused.stderr) == (1, True)
    else:
        assert refused.code == 0
    late = [each["text"] for each in two.run("--json", "status").document["dumps"]]
    assert late == [f"no good archive within its objective in: {lost}"]


def test_without_any_nothing_is_dumped(two: Place) -> None:
    """With both gone the pull fails with the error of the first, before a dump is begun."""
    with missing(where(two)["main"]), missing(where(two)[REPLICA]):
        entry = pull(two, code=1)
    assert entry["error"]["type"] == "RepositoryNotFound"
    assert not two.latest.exists()


def test_the_second_that_dies_in_mid_copy_leaves_the_first(two: Place) -> None:
    """borg killed while it writes to the replica: that archive is not there, nor half of it; the first one stands."""
    configure(two, "head -c 100000000 /dev/urandom")
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull, two, code=3)
        folder = where(two)[REPLICA]
        borg = wait_for(lambda: borg_creating(folder), timeout=120, what="the second borg create", interval=0.005)
        os.kill(borg, signal.SIGKILL)
        wait_for(lambda: gone(borg), timeout=30, what="its end")
        entry = pulling.result()
    assert (entry["result"]["repository"], list(errors(entry))) == ("main", [REPLICA])
    assert archives(two)["main"] == [entry["result"]["archive"]]
    assert archives(two)[REPLICA] == []
    configure(two)
    again = pull(two, "--accept-smaller")
    assert (again["state"], archives(two)[REPLICA]) == ("complete", [again["result"]["archive"]])
    assert not [name for found in archives(two).values() for name in found if name.endswith(UNFINISHED)]
