"""Archives of dumps under the keep rules of their host: pruned for real, beside those of VMs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.borg.client import Repository
from infra.config.load import load
from infra.retention.retired import Sight
from tasks.repositories import open_repository
from tasks.retention.outlook import View
from tasks.retention.run import prune_repository
from tests.integration.many import Wanted, WantedDump, fill
from tests.integration.vmborg import vmborg

pytestmark = pytest.mark.integration

WEB = "00000001-0000-4000-8000-000000000000"
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
DAY = timedelta(days=1)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A hypervisor that keeps three days of dumps of `db`, two of VMs, and knows nothing of other dump hosts."""
    host: dict[str, Any] = {"address": "127.0.0.1", "retention": {"daily": 3}}
    host["sources"] = [{"kind": "postgresql"}]
    settings = {
        "state_dir": str(tmp_path / "state"),
        "hypervisor": {"name": "kvm1", "uri": "qemu+unix:///system?socket=/nonexistent"},
        "repositories": {"main": {"location": str(tmp_path / "repository"), "encryption": "none"}},
        "vms": {"defaults": {"retention": {"daily": 2}}},
        "dumps": {"hosts": {"db": host}},
    }
    path = tmp_path / "kvm1.yaml"
    path.write_text(json.dumps(settings))
    _main(path).init()
    return path


def _main(config: Path) -> Repository:
    return open_repository(load(config), "main")


def _left(config: Path) -> set[str]:
    return {archive.name for archive in _main(config).archives()}


def _prune(config: Path) -> dict[str, str]:
    """Prune; the rule for each archive."""
    view = View(Sight("kvm1", None, frozenset()), {}, NOON + DAY)
    outlook = prune_repository(load(config), "main", view).outlook
    assert outlook is not None
    return {each.archive.name: each.rule for source in outlook.sources for each in source.decisions}


def nights(dump_host: str, count: int, **facts: Any) -> list[WantedDump]:
    """An archive of dumps each night, newest first."""
    return [WantedDump(dump_host, NOON - DAY * index, **facts) for index in range(count)]


def test_each_host_keeps_what_its_rules_say(config: Path) -> None:
    """Rules are those of the host, for it alone; of hosts that the configuration does not know nothing is deleted."""
    mine, like, theirs = nights("db", 6), nights("db-2", 5), nights("db", 5, host="kvm2")
    foreign = nights("else", 5, host="kvm2")
    # One second apart: the names of archives are those of one repository.
    theirs = [WantedDump("db", each.when + timedelta(seconds=1), host="kvm2") for each in theirs]
    names = fill(_main(config), [*mine, *like, *theirs, *foreign])
    shown = vmborg("prune", "--json", "--dry-run", config=config).document["repositories"][0]["archives"]
    rules = {each["archive"]: each["rule"] for each in shown}
    assert _left(config) == set(names)
    assert {rules[each.name] for each in like} == {"retired, in its grace"}
    assert {rules[each.name] for each in foreign} == {"no policy here"}
    assert [rules[each.name] for each in mine] == ["daily #1", "daily #2", "daily #3", "pruned", "pruned", "pruned"]
    _prune(config)
    # What another hypervisor pulls under this name is counted by itself.
    assert _left(config) == {each.name for each in (*mine[:3], *like, *theirs[:3], *foreign)}


def test_a_dump_that_is_not_whole_pushes_no_good_one_out(config: Path) -> None:
    """Archives with a stale source count for nothing: the last three good ones stay, however old they are."""
    bad, good = nights("db", 5, bad="postgresql"), [WantedDump("db", NOON - DAY * (10 + i)) for i in range(4)]
    fill(_main(config), [*bad, *good])
    _prune(config)
    assert {each.name for each in good[:3]} <= _left(config)
    assert good[3].name not in _left(config)
    assert _left(config) & {each.name for each in bad} == {each.name for each in bad[:3]}


def test_a_recovery_point_stays_whole(config: Path) -> None:
    """The dump that was taken just before a VM's archive stays as long as that one, and goes with it."""
    dumps = nights("db", 6)
    vms = [Wanted(WEB, "web", NOON - DAY * 5), Wanted(WEB, "web", NOON - DAY * 4), Wanted(WEB, "web", NOON - DAY * 3)]
    vms = [Wanted(each.uuid, each.vm, each.when, dumps=dumps[5 - index].name) for index, each in enumerate(vms)]
    fill(_main(config), [*dumps, *vms])
    rules = _prune(config)
    assert rules[dumps[4].name] == f"with {vms[1].name}"
    assert _left(config) == {each.name for each in (*dumps[:5], *vms[1:])}
