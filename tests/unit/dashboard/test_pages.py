"""What the pages say, for a stranger who looks at them."""

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, fromstring

from infra.config.models import RepositoryConfig
from tasks.catalogue import VmArchive
from tasks.dashboard.cells import Line, lines
from tasks.dashboard.fleet_page import HostTable, aged, fleet_page, listed, page_of, rows, verdict
from tasks.dashboard.repository_page import Contents, headline, repository_page
from tasks.dashboard.vm_page import page_key, vm_page
from tasks.dumps.status import DumpStatus
from tasks.health import Finding, Health
from tasks.space import Sample
from tasks.status import Source, Status, VmStatus, judge

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
GIB = 1024**3
DAY = timedelta(days=1)
SILENT = timedelta(hours=3)


def archives(count: int, *, age: timedelta = timedelta(hours=9)) -> tuple[VmArchive, ...]:
    """A good archive each day, the newest `age` old."""
    times = [NOW - age - DAY * back for back in reversed(range(count))]
    return tuple(
        VmArchive(
            repository="main",
            archive=f"vm.c1d9f5a4.web@{when:%Y-%m-%dT%H:%M:%SZ}",
            vm="web",
            uuid=UUID,
            time=when,
            finished=True,
            consistency="agent",
            frozen_ms=120,
            disks={"vda": 40 * GIB},
            seconds=95.0,
        )
        for when in times
    )


def source(found: tuple[VmArchive, ...], vm: str = "web") -> Source:
    """A VM whose first backup stored 20 GiB and each later one 1 GiB."""
    new = {each.archive: (20 if number == 0 else 1) * GIB for number, each in enumerate(found)}
    return Source(vm, UUID, "running", timedelta(hours=26), "main", archives=found, new_data=new)


def status(*vms: VmStatus) -> Status:
    """A host with these VMs and one dump host."""
    dump = DumpStatus(Health.OK, "db01", "pulled", DAY, "main", time=NOW, age=timedelta(0))
    return Status(Health.OK, vms, (), (dump,))


def host_table(host: str, *vms: VmStatus, problems: tuple[Finding, ...] = (), age: timedelta = SILENT) -> HostTable:
    """What a host said that long ago."""
    return HostTable(host, NOW - age, rows(host, [Line(vm, next(lines(status(vm))).cells) for vm in vms], problems))


GOOD = judge(source(archives(3)), NOW)
NEVER = judge(replace(source((), "new"), uuid="another"), NOW)


def svg(page: str) -> Element:
    """The plot of a page."""
    found = re.search(r"\(data:image/svg\+xml;base64,([^)]+)\)", page)
    assert found
    return fromstring(base64.b64decode(found[1]))  # noqa: S314 - our own


def test_a_line_says_all_that_the_fleet_wants_to_know() -> None:
    """Last good archive, age against objective, size, new data, duration, consistency, uncovered disks, verdict."""
    vm, dump = (line.cells for line in lines(status(GOOD)))
    assert list(vm.values()) == [
        "ok", "web", "running", "2026-11-22 03:00:00Z", "9h", "1d 2h", "40.0 GiB", "1.0 GiB", "1m", "agent", "-",
        "-", "backed up",
    ]  # fmt: skip
    assert list(dump) == list(vm)
    assert dump["VM"] == "dumps of db01"


def test_the_fleet_says_first_whether_all_is_safe() -> None:
    """One line for everything; what is not well comes first, with what to do; each VM has its line and its link."""
    well = aged([host_table("kvm1", GOOD)], now=NOW, silent=SILENT)
    assert verdict(well) == "✔ The only VM is safe"
    problem = Finding(Health.CRITICAL, "repository main", "space", "only 3 % are free", "Make room.")
    both = aged([host_table("kvm2", NEVER, problems=(problem,)), *well], now=NOW, silent=SILENT)
    assert verdict(both) == "✖ 1 of 2 VMs not safe, 1 other problem"
    page = fleet_page(both, {page_key("web", UUID): "1d9f"}, now=NOW)
    assert page.startswith(f"# {verdict(both)}\n")
    assert "- ✖ critical: **new** never backed up; vmborg backup new" in page
    assert "repository main: only 3 % are free Make room." in page
    assert "[web](../artifact/1d9f)" in page
    assert page_of(both[1].rows[0]) == ""


def test_a_silent_host_is_not_safe() -> None:
    """What a host said longer ago than it may be silent does not count as safe."""
    old = aged([host_table("kvm1", GOOD, age=SILENT + timedelta(minutes=1))], now=NOW, silent=SILENT)
    assert verdict(old).startswith("✖")
    assert "kvm1 was last heard 3h 1m ago" in fleet_page(old, {}, now=NOW)


def test_of_many_only_those_that_are_not_well_are_shown() -> None:
    """A page of a thousand lines answers nothing."""
    many = [host_table("kvm1", *[GOOD] * 59, NEVER), host_table("kvm2", *[GOOD] * 40)]
    assert [row["VM"] for row in listed(many)] == ["new"]
    assert len(listed(many[:1])) == 60


def test_a_vm_has_its_history_its_plot_and_the_way_back() -> None:
    """The newest archive first; a bar for each; the first backup, far above the others, is cut off and labelled."""
    found = archives(40)
    page = vm_page("kvm1", judge(source(found), NOW), found, source(found).new_data, now=NOW)
    history = [line for line in page.splitlines() if line.startswith("| 2026")]
    assert len(history) == 30
    assert [cell.strip() for cell in history[0].replace("\u00a0", " ").replace("\u2011", "-").split("|")[1:6]] == [
        "2026-11-22 03:00:00Z", "agent", "120 ms", "40.0 GiB", "1.0 GiB",
    ]  # fmt: skip
    assert "The newest 30 of 40." in page
    drawn = svg(page)
    assert len(drawn.findall("{*}rect")) == 2 * 40
    texts = [text.text for text in drawn.findall("{*}text")]
    assert texts.count("▲ 20.0 GiB") == 1
    assert "4.0 GiB" in texts
    assert f"    vmborg restore web --as web-copy --archive {found[0].archive}" in page


def test_keys_are_prefects_and_no_two_vms_share_one() -> None:
    """Names that differ only in what a key cannot hold have different keys, by their UUIDs."""
    keys = {page_key(name, uuid) for name, uuid in (("Web 1", "0a"), ("web_1", "0b"), ("ü", "0c"), ("--", "0d"))}
    assert len(keys) == 4
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)


def test_a_repository_tells_how_long_it_will_do() -> None:
    """Capacity, growth and days left; of one on a server what borg told of it."""
    kept = [Sample(NOW - DAY * back, (90 - back) * GIB, (10 + back) * GIB, 200 * GIB) for back in reversed(range(20))]
    contents = Contents(archives(3), (), source(archives(3)).new_data)
    settings = RepositoryConfig(location="/srv/borg/main", encryption="none")
    page = repository_page("kvm1", "main", settings, contents, kept=kept, now=NOW)
    assert "**10 days left**" in page
    assert "1.0 GiB a day, 30.0 GiB a month" in page
    assert "200.0 GiB, 95 % used" in page
    assert len(svg(page).findall("{*}rect")) == 20
    assert "not known before tomorrow" in headline(contents, kept[-1:])
    assert "known after the next backup" in repository_page("kvm1", "main", settings, contents, kept=[], now=NOW)
    told = [replace(each, free=0, total=0) for each in kept]
    remote = RepositoryConfig(location="ssh://borg@backup/./main", encryption="none")
    page = repository_page("kvm1", "main", remote, contents, kept=told, now=NOW)
    assert "`capacity` in the configuration" in page
    assert ("90.0 GiB" in page, "1.0 GiB a day, 30.0 GiB a month" in page, "used" in page) == (True, True, False)
    limited = [replace(each, free=100 * GIB - each.size, total=100 * GIB) for each in kept]
    page = repository_page("kvm1", "main", remote, contents, kept=limited, now=NOW)
    assert "**10 days left**" in page
    assert "**Capacity:** 100.0 GiB, 90 % used" in page
    assert "cannot be read:** gone" in headline(replace(contents, problem="gone"), kept)
