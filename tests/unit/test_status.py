"""The verdict on a VM: danger first, then the age and completeness of its last good archive."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from infra.model import ImageKind, JournalEntry, Overlay, Phase
from tasks.catalogue import VmArchive
from tasks.health import Health, worst
from tasks.open_runs import OpenRun
from tasks.status import GONE, Source, judge

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
GOOD = VmArchive(
    repository="main",
    archive="vm.c1d9f5a4.web@2026-11-22T03:00:00Z",
    vm="web",
    uuid=UUID,
    time=NOW - timedelta(hours=9),
    finished=True,
    consistency="agent",
    disks={"vda": 1024},
)
SOURCE = Source(
    vm="web", uuid=UUID, state="running", objective=timedelta(hours=26), repository="main", archives=(GOOD,)
)
ENTRY = JournalEntry(
    run_id="00ff00ff",
    uuid=UUID,
    name="web",
    hypervisor="kvm1",
    started=NOW - timedelta(hours=1),
    phase=Phase.SNAPSHOTTED,
    overlays=(Overlay("vda", "/i/web.qcow2", ImageKind.FILE, "qcow2", "/i/web.qcow2.vda.vmborg-00ff00ff.qcow2"),),
)
DEAD = OpenRun(ENTRY, "")
STALE = replace(GOOD, time=NOW - timedelta(hours=27))


@pytest.mark.parametrize(
    ("changes", "health", "said"),
    [
        ({}, Health.OK, "backed up"),
        ({"archives": ()}, Health.CRITICAL, "never backed up"),
        ({"archives": (replace(GOOD, finished=False),)}, Health.CRITICAL, "never backed up"),
        ({"archives": (STALE,)}, Health.CRITICAL, "older than its objective"),
        ({"archives": (STALE, replace(GOOD, finished=False))}, Health.CRITICAL, "older than its objective"),
        ({"archives": (GOOD, replace(GOOD, uncovered=("vdb",)))}, Health.WARNING, "not covered: vdb"),
        ({"archives": (replace(GOOD, time=NOW + timedelta(hours=1)),)}, Health.WARNING, "from the future"),
        ({"unread": ("main",)}, Health.UNKNOWN, "cannot be read"),
        ({"excluded_by": "w*", "archives": ()}, Health.OK, "excluded by 'w*'"),
        ({"state": GONE, "archives": (STALE,)}, Health.OK, "no longer defined"),
        ({"run": DEAD}, Health.CRITICAL, "died"),
        ({"run": DEAD, "excluded_by": "w*"}, Health.CRITICAL, "died"),
        ({"run": DEAD, "state": GONE}, Health.CRITICAL, "died"),
        ({"run": OpenRun(ENTRY, "pid 7 since then")}, Health.OK, "being worked on by pid 7"),
        ({"run": OpenRun(ENTRY, "pid 7"), "archives": ()}, Health.CRITICAL, "never backed up; being worked on"),
        ({"stray_overlays": ("/i/x",), "excluded_by": "w*"}, Health.CRITICAL, "no journal entry knows"),
    ],
)
def test_verdicts(changes: dict, health: Health, said: str) -> None:
    """Each situation has its level; what is not ok names what to do, except where only time helps."""
    verdict = judge(replace(SOURCE, **changes), NOW)
    assert (verdict.health, said in verdict.text) == (health, True)
    assert bool(verdict.remedy) is (health in {Health.CRITICAL, Health.WARNING})


REPLICA = replace(GOOD, repository="second")
BOTH = replace(SOURCE, replicas=("second",), archives=(GOOD, REPLICA))


@pytest.mark.parametrize(
    ("changes", "health", "said"),
    [
        ({}, Health.OK, "backed up"),
        ({"archives": (GOOD,)}, Health.WARNING, "in: second"),
        ({"archives": (REPLICA,)}, Health.WARNING, "in: main"),
        ({"archives": (GOOD, replace(REPLICA, time=STALE.time))}, Health.WARNING, "in: second"),
        ({"archives": (GOOD, replace(REPLICA, finished=False))}, Health.WARNING, "in: second"),
        ({"archives": (REPLICA,), "unread": ("main",)}, Health.WARNING, "in: main (cannot be read)"),
        ({"archives": (GOOD,), "unread": ("second",)}, Health.WARNING, "in: second (cannot be read)"),
        ({"archives": (STALE,), "unread": ("second",)}, Health.UNKNOWN, "'second' cannot be read"),
        ({"archives": (STALE, replace(STALE, repository="second"))}, Health.CRITICAL, "older than its objective"),
        ({"archives": ()}, Health.CRITICAL, "never backed up"),
    ],
)
def test_replicas(changes: dict, health: Health, said: str) -> None:
    """A repository that lags behind another is a warning; a VM is critical only when none has a young archive."""
    verdict = judge(replace(BOTH, **changes), NOW)
    assert (verdict.health, said in verdict.text) == (health, True), verdict.text


def test_of_two_equal_archives_the_line_names_the_vms_own_repository() -> None:
    """The same archive in both repositories is told as that of the VM's own."""
    assert judge(replace(BOTH, archives=(GOOD, REPLICA)), NOW).repository == "main"


def test_the_line_tells_of_the_last_good_archive() -> None:
    """Age, consistency and name are those of the newest finished archive, not of the newest."""
    verdict = judge(replace(SOURCE, archives=(STALE, GOOD, replace(GOOD, finished=False, time=NOW))), NOW)
    assert (verdict.archive, verdict.age, verdict.consistency) == (GOOD.archive, timedelta(hours=9), "agent")


def test_names_are_quoted_in_remedies() -> None:
    """A remedy can be pasted into a shell whatever the VM is called."""
    assert judge(replace(SOURCE, vm="my vm; reboot", run=DEAD), NOW).remedy == "vmborg recover 'my vm; reboot'"
    assert judge(replace(SOURCE, vm="--all", archives=()), NOW).remedy == "vmborg backup -- --all"


def test_the_gravest_level_wins() -> None:
    """critical before unknown before warning before ok; exit codes are those of monitoring plugins."""
    assert worst([]) is Health.OK
    assert worst([Health.OK, Health.WARNING]) is Health.WARNING
    assert worst([Health.WARNING, Health.UNKNOWN]) is Health.UNKNOWN
    assert worst([Health.CRITICAL, Health.UNKNOWN]) is Health.CRITICAL
    assert [level.exit_code for level in (Health.OK, Health.WARNING, Health.CRITICAL, Health.UNKNOWN)] == [0, 1, 2, 3]
