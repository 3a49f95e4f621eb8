"""Prune, hold and retire against real repositories, with frozen dates, several hosts and servers that refuse."""

import json
from pathlib import Path

import pytest

from infra.config.load import load
from infra.hypervisor.connection import Hypervisor
from infra.retention.retired import Sight, Stage
from tasks.repositories import open_repository
from tasks.retention.holding import hold, release
from tasks.retention.model import Pruned
from tasks.retention.outlook import View
from tasks.retention.run import prune_repository
from tasks.upkeep import facts_of
from tests.guests import Daemons
from tests.integration.hosting import Host, defined, disk
from tests.integration.many import Wanted, fill
from tests.integration.shared_repository import DAY, DB, NOW, WEB, WEB2, Site, empty_site, nights
from tests.integration.vmborg import vmborg

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty repository."""
    return empty_site(tmp_path)


def stages(pruned: Pruned) -> dict[str, Stage]:
    """Where each source stands."""
    assert pruned.outlook
    return {source.name: source.stage for source in pruned.outlook.sources}


def test_prune_deletes_by_name_what_no_rule_keeps(site: Site) -> None:
    """Each source keeps its own three days; likes of names do not meet; a partial archive counts for nothing."""
    web, like, partial = nights(WEB, "web", 5), nights(WEB2, "web-2", 1), nights(DB, "web*", 6)
    partial[0] = Wanted(DB, "web*", NOW, uncovered="vdb")
    names = site.fill(*web, *like, *partial)
    foreign = open_repository(site.config(), "main")
    foreign.create("web-somebody's", [__file__], comment="", files_cache_suffix="x")
    assert site.prune(dry_run=True).deleted == ()
    assert site.names() == sorted(names, key=lambda name: name.rpartition("@")[2])
    done = site.prune()
    kept = {each.name for each in (*web[:3], *like, *partial[:4])}
    assert set(site.names()) == kept
    assert set(done.deleted) == set(names) - kept
    assert "web-somebody's" in [each.name for each in foreign.archives()]
    assert facts_of(site.config().state, "main")["freed_bytes"] >= 0
    assert site.prune().deleted == ()


def test_a_hold_is_seen_by_every_host(site: Site) -> None:
    """What one host holds, another one's prune keeps, until it is released or its date is over."""
    web = nights(WEB, "web", 6)
    site.fill(*web)
    hold(site.config("kvm2"), web[4].name, until=None, now=NOW)
    hold(site.config("kvm2"), web[5].name, until=NOW + DAY, now=NOW)
    site.prune("kvm1")
    assert set(site.names()) == {web[index].name for index in (0, 1, 2, 4, 5)}
    site.prune("kvm1", now=NOW + 2 * DAY)
    assert set(site.names()) == {web[index].name for index in (0, 1, 2, 4)}
    assert site.marks() == ["hold"]
    release(site.config("kvm3"), web[4].name)
    site.prune("kvm1")
    assert set(site.names()) == {web[index].name for index in (0, 1, 2)}
    assert site.marks() == []


def test_a_deleted_vm_is_retired_thinned_forgotten(site: Site) -> None:
    """Gone on day 0; whole for 90 days; thinned to its last archive; deleted when its name is typed, not before."""
    gone = NOW - 100 * DAY
    web, like = nights(WEB, "web", 5, until=gone - DAY), nights(WEB2, "web-2", 2, until=NOW)
    site.fill(*web, *like)
    assert stages(site.prune(present=[WEB, WEB2], now=gone - DAY, dry_run=True)) == {"web": "active", "web-2": "active"}

    first = site.prune(present=[WEB2], now=gone)
    assert (stages(first)["web"], first.deleted, site.marks()) == (Stage.RETIRED, (), ["retired"])
    assert site.prune(present=[WEB2], now=gone + 89 * DAY).deleted == ()

    thinned = site.prune(present=[WEB2], now=gone + 90 * DAY)
    assert stages(thinned) == {"web": Stage.THINNED, "web-2": Stage.ACTIVE}
    assert set(site.names()) == {web[0].name, *(each.name for each in like)}
    assert site.prune(present=[WEB2], now=gone + 3000 * DAY).deleted == ()

    config = site.write()
    wrong = vmborg("retire", "web", "--forget", "--confirm", "wbe", config=config)
    alive = vmborg("retire", "web-2", "--forget", "--confirm", "web-2", config=config)
    assert (wrong.code, alive.code) == (2, 1)
    assert "is not retired" in alive.voices()[0]
    shown = vmborg("retire", "--json", config=config).document["retired"]
    assert [(each["name"], each["stage"], each["archives"]) for each in shown] == [("web", "thinned", 1)]
    assert vmborg("retire", "web", "--forget", "--confirm", "web", config=config).code == 0
    assert set(site.names()) == {each.name for each in like}
    assert site.marks() == []


def test_a_policy_forgets(site: Site) -> None:
    """With forget_after a retired VM's archives go by themselves, held ones aside."""
    web = nights(WEB, "web", 3, until=NOW - 500 * DAY)
    site.fill(*web)
    hold(site.config(), web[1].name, until=None, now=NOW)
    site.prune(present=[], now=NOW - 400 * DAY)
    path = site.write()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"retired": {"forget_after": "1y"}}))
    view = View(Sight("kvm1", frozenset()), {}, NOW)
    prune_repository(load(path), "main", view)
    assert site.names() == [web[1].name]


def test_who_may_not_retire_a_vm(site: Site) -> None:
    """A silent libvirt, another hypervisor and an override in the configuration retire nothing."""
    site.fill(*nights(WEB, "web", 2))
    assert stages(site.prune(present=None)) == {"web": Stage.ACTIVE}
    assert stages(site.prune("kvm2", present=[])) == {"web": Stage.ACTIVE}
    assert site.marks() == []


def test_a_migrated_vm_belongs_to_its_new_host(site: Site) -> None:
    """After a backup on kvm2 a VM is kvm2's: kvm1, where it is gone, does not retire it; kvm2 does when it goes."""
    site.fill(*nights(WEB, "web", 2, until=NOW - DAY), Wanted(WEB, "web", NOW, host="kvm2"))
    assert stages(site.prune("kvm1", present=[])) == {"web": Stage.ACTIVE}
    gone = site.prune("kvm2", present=[], maintainer="kvm1")
    assert (stages(gone), gone.deleted) == ({"web": Stage.RETIRED}, ())
    assert stages(site.prune("kvm1", present=[])) == {"web": Stage.RETIRED}


@pytest.mark.parametrize("way", ["seen by its host", "backed up elsewhere"])
def test_coming_back_undoes_a_retirement(site: Site, way: str) -> None:
    """A retired VM that is seen again, or backed up again on any host, is active and its mark is removed."""
    site.fill(*nights(WEB, "web", 2, until=NOW - 200 * DAY))
    site.prune(present=[], now=NOW - 150 * DAY)
    assert site.marks() == ["retired"]
    if way == "backed up elsewhere":
        site.fill(Wanted(WEB, "web", NOW, host="kvm2"))
        back = site.prune(present=[], now=NOW)
    else:
        back = site.prune(present=[WEB], now=NOW)
    assert (stages(back), back.deleted, site.marks()) == ({"web": Stage.ACTIVE}, (), [])


def test_a_failing_repository_does_not_stop_the_next(
    tmp_path: Path, images: Path, daemons: Daemons, prefect_server: str
) -> None:
    """The command prunes what it can, tells the other's error, and ends with 1; a VM that is defined is not retired."""
    host = Host(tmp_path, images, daemons.uri, api=prefect_server)
    missing = {**host.repository_settings("missing"), "location": str(tmp_path / "nowhere")}
    host.configure(
        repositories={"missing": missing, "main": host.repository_settings("main")},
        vms={"defaults": {"retention": {"last": 2}}},
    )
    host.repository().init()
    with Hypervisor.open(host.uri) as hypervisor, defined(hypervisor, "pruned web", [disk(images)]) as domain:
        names = fill(host.repository(), nights(domain.uuid, domain.name, 4))
        dry = host.run("prune", "--dry-run", "--repository", "main", "--json")
        assert dry.code == 0
        rows = dry.document["repositories"][0]["archives"]
        assert [(row["archive"], row["fate"], row["rule"]) for row in rows] == [
            (names[0], "kept", "last #1"),
            (names[1], "kept", "last #2"),
            (names[2], "pruned", "pruned"),
            (names[3], "pruned", "pruned"),
        ]
        call = host.run("prune")
    assert call.code == 1
    assert "There is no repository" in call.stderr
    assert "2 of 4 archives deleted" in call.stdout
    assert {each.name for each in host.repository().archives()} == set(names[:2])


def test_hold_and_release_as_a_user_runs_them(site: Site) -> None:
    """A hold is made, listed and released by its archive's name; what does not exist or is past is refused."""
    name = site.fill(Wanted(WEB, "web", NOW))[0]
    config = site.write()
    assert vmborg("hold", name, "--until", "2099-01-01", config=config).code == 0
    held = vmborg("hold", "--json", config=config).document["holds"]
    assert [(each["archive"], each["until"], each["host"]) for each in held] == [(name, "2099-01-01T00:00:00Z", "kvm1")]
    assert vmborg("hold", name, "--until", "2001-01-01", config=config).code == 2
    assert vmborg("hold", "vm.nothing", config=config).code == 1
    assert vmborg("release", name, config=config).code == 0
    assert vmborg("release", name, config=config).code == 1
