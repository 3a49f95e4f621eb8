"""Dump hosts that are gone: retired, thinned, forgotten, back again; with frozen dates, beside VMs of their name."""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load
from infra.retention.retired import Sight, Stage
from tasks.repositories import open_repository
from tasks.retention.model import Pruned
from tasks.retention.outlook import View
from tasks.retention.run import prune_repository
from tests.integration.many import Wanted, WantedDump, fill
from tests.integration.shared_repository import DAY, WEB, nights
from tests.integration.vmborg import vmborg

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
GONE = NOW - 100 * DAY
ID = "dump.web@kvm1"


def configure(root: Path, *hosts: str, name: str = "kvm1") -> Path:
    """A hypervisor without libvirt that has these dump hosts, and keeps one archive of each VM."""
    host: dict[str, Any] = {"address": "127.0.0.1", "sources": [{"kind": "postgresql"}], "retention": {"daily": 3}}
    settings = {
        "state_dir": str(root / f"state-{name}"),
        "hypervisor": {"name": name, "uri": "qemu+unix:///system?socket=/nonexistent"},
        "repositories": {"main": {"location": str(root / "repository"), "encryption": "none"}},
        "vms": {"defaults": {"retention": {"daily": 9}}},
        "dumps": {"hosts": dict.fromkeys(hosts, host)},
    }
    path = root / f"{name}.yaml"
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One that has no dump host any more; its repository is empty."""
    path = configure(tmp_path)
    open_repository(load(path), "main").init()
    return path


def dumps(host: str, count: int, *, until: datetime = GONE - DAY, by: str = "kvm1") -> list[WantedDump]:
    """An archive of dumps each night, newest first; those of another hypervisor a second later."""
    late = timedelta(seconds=0 if by == "kvm1" else 1)
    return [WantedDump(host, until - DAY * index + late, host=by) for index in range(count)]


def left(config: Path) -> set[str]:
    """Every archive and mark."""
    return {archive.name for archive in open_repository(load(config), "main").archives()}


def marks(config: Path) -> int:
    """How many marks of retirement there are."""
    return sum(name.startswith("retired.") for name in left(config))


def prune(config: Path, now: datetime, hosts: Collection[str] = ()) -> Pruned:
    """Prune as of this moment, when the configuration has these dump hosts; the VM is there."""
    sight = Sight("kvm1", frozenset([WEB]), dump_hosts=frozenset(hosts))
    return prune_repository(load(config), "main", View(sight, {}, now))


def stages(pruned: Pruned) -> dict[str, Stage]:
    """Where each source stands, by its id."""
    assert pruned.outlook
    return {source.id: source.stage for source in pruned.outlook.sources}


def test_a_host_that_is_gone_is_retired_thinned_forgotten(config: Path) -> None:
    """Gone on day 0; whole for 90 days; then its last archive; deleted when its id is typed, a VM of its name never."""
    mine, theirs, vm = dumps("web", 5), dumps("web", 2, by="kvm2"), nights(WEB, "web", 2)
    fill(open_repository(load(config), "main"), [*mine, *theirs, *vm])
    others = {each.name for each in (*theirs, *vm)}
    assert stages(prune(config, GONE - DAY, ["web"]))[ID] is Stage.ACTIVE

    first = prune(config, GONE)
    assert stages(first) == {ID: Stage.RETIRED, "dump.web@kvm2": Stage.ACTIVE, WEB: Stage.ACTIVE}
    assert (first.deleted, marks(config)) == ((), 1)
    assert prune(config, GONE + 89 * DAY).deleted == ()
    assert stages(prune(config, GONE + 90 * DAY))[ID] is Stage.THINNED
    kept = {name for name in left(config) if not name.startswith("retired.")}
    assert kept == {mine[0].name} | others

    shown = vmborg("retire", "--json", config=config).document["retired"]
    assert [(each["kind"], each["name"], each["id"], each["stage"]) for each in shown] == [
        ("dump", "web", ID, "thinned")
    ]
    twice = vmborg("retire", "web", "--forget", "--confirm", "web", config=config)
    assert (twice.code, ID in twice.stderr, WEB in twice.stderr) == (1, True, True)
    assert left(config) > kept
    assert vmborg("retire", "dump.web@kvm2", "--forget", "--confirm", "dump.web@kvm2", config=config).code == 1
    assert vmborg("retire", ID, "--forget", "--confirm", "web", config=config).code == 2
    assert vmborg("retire", ID, "--forget", "--confirm", ID, config=config).code == 0
    assert left(config) == others


def test_the_command_retires_and_takes_back(config: Path) -> None:
    """`vmborg prune` retires a host that its configuration names no more, without libvirt; named again it is back."""
    found = dumps("web 1/2", 5)
    fill(open_repository(load(config), "main"), found)
    told = vmborg("prune", config=config)
    assert (told.code, "web 1/2 is gone: retired from now on" in told.stdout, marks(config)) == (0, True, 1)
    assert len(left(config)) == 6
    status = vmborg("--json", "status", config=config).document["dumps"]
    assert [(each["host"], each["health"], each["objective"]) for each in status] == [("web 1/2", "ok", None)]
    assert vmborg("retire", "web 1/2", "--forget", "--confirm", "no", config=config).code == 2
    assert vmborg("retire", "web 1/2", "--forget", "--confirm", "web 1/2", config=config).code == 0
    assert left(config) == set()


@pytest.mark.parametrize("way", ["named again", "pulled again"])
def test_coming_back_undoes_it(config: Path, way: str) -> None:
    """A retired host that the configuration names again, or that was pulled again, is active; its mark is removed."""
    fill(open_repository(load(config), "main"), dumps("web", 2))
    prune(config, GONE)
    assert marks(config) == 1
    if way == "pulled again":
        fill(open_repository(load(config), "main"), [WantedDump("web", NOW)])
    back = prune(config, NOW, ["web"])
    assert (stages(back), back.deleted, marks(config)) == ({ID: Stage.ACTIVE}, (), 0)


def test_a_held_archive_stops_the_end(config: Path) -> None:
    """What is held is not thinned, and its host is not forgotten before it is released."""
    found = dumps("web", 3)
    fill(open_repository(load(config), "main"), found)
    assert vmborg("hold", found[2].name, config=config).code == 0
    prune(config, GONE)
    prune(config, NOW)
    assert {each.name for each in (found[0], found[2])} <= left(config)
    assert found[1].name not in left(config)
    held = vmborg("retire", "web", "--forget", "--confirm", "web", config=config)
    assert (held.code, "are held" in held.stderr) == (1, True)


def test_a_repository_that_is_missing_hides_no_other(config: Path) -> None:
    """`retire` and `hold` list what the others have, tell that error, and end with 1; nothing is forgotten then."""
    found = dumps("web", 2)
    fill(open_repository(load(config), "main"), found)
    settings = json.loads(config.read_text())
    settings["repositories"]["gone"] = {"location": str(config.with_name("nowhere")), "encryption": "none"}
    config.write_text(json.dumps(settings))
    prune(config, GONE)
    for verb, listed in (("retire", "retired"), ("hold", "holds")):
        call = vmborg("--json", verb, config=config)
        assert (call.code, [each["repository"] for each in call.document["errors"]]) == (1, ["gone"])
        assert len(call.document[listed]) == (verb == "retire")
    assert vmborg("retire", "web", "--forget", "--confirm", "web", config=config).code == 1
    assert {each.name for each in found} <= left(config)


def test_only_its_own_hypervisor_retires_a_host(config: Path, tmp_path: Path) -> None:
    """Another hypervisor that prunes the same repository and has no such host leaves its archives alone."""
    found = dumps("web", 5, until=NOW)
    fill(open_repository(load(config), "main"), found)
    assert vmborg("prune", config=configure(tmp_path, name="kvm2")).code == 0
    assert left(config) == {each.name for each in found}


def test_a_recovery_point_of_a_gone_host_stays(config: Path) -> None:
    """The dump that was taken just before a VM's archive outlives the grace with it."""
    found = dumps("web", 3)
    vm = Wanted(WEB, "web", found[2].when, dumps=found[2].name)
    fill(open_repository(load(config), "main"), [*found, vm])
    prune(config, GONE)
    prune(config, NOW)
    assert {found[0].name, found[2].name, vm.name} <= left(config)
    assert found[1].name not in left(config)
