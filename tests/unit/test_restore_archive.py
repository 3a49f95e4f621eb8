"""Which archive a restore takes, and what it does not believe of one."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.borg.client import ArchiveItem
from infra.borg.names import archive_name, unfinished
from infra.errors import ArchiveIncomplete, ArchiveNotFound, UnsafeArchive, UsageError, VmborgError
from tasks.restore.archive import LATEST, check_items, choose

WEB = "11111111-0000-4000-8000-000000000000"
OTHER = "22222222-0000-4000-8000-000000000000"


def _name(uuid: str, vm: str, day: int) -> str:
    return archive_name(uuid, vm, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day))


NAMES = [
    _name(WEB, "web", 3),
    _name(WEB, "web", 1),
    unfinished(_name(WEB, "web", 9)),
    _name(OTHER, "web-2", 7),
    "dump.web@2026-02-01T00:00:00Z",
    "somebody's own archive",
]


@pytest.mark.parametrize("vm", ["web", WEB, WEB[:8], "1111", WEB.upper()])
def test_latest_is_the_newest_finished_of_this_vm(vm: str) -> None:
    """By name or UUID: never an unfinished archive, a dump, or one of a VM whose name begins alike."""
    assert choose(NAMES, vm, LATEST).name == _name(WEB, "web", 3)


def test_a_renamed_vm_finds_its_older_archives() -> None:
    """The UUID of the domain that bears the name now leads to archives from before it was renamed."""
    assert choose(NAMES, "www", LATEST, uuid=WEB).name == _name(WEB, "web", 3)


@pytest.mark.parametrize(
    ("vm", "wanted", "kind"),
    [
        ("nobody", LATEST, ArchiveNotFound),
        ("web", "nonsense", ArchiveNotFound),
        ("web", _name(OTHER, "web-2", 7), UsageError),
        ("web", unfinished(_name(WEB, "web", 9)), ArchiveIncomplete),
    ],
)
def test_what_cannot_be_restored_is_refused(vm: str, wanted: str, kind: type[VmborgError]) -> None:
    """No archive, no such archive, another VM's and an unfinished one: each its own error, with a remedy."""
    with pytest.raises(kind) as refusal:
        choose(NAMES, vm, wanted, repository="main")
    assert type(refusal.value) is kind
    assert refusal.value.remedy


def test_an_archive_named_outright_is_taken() -> None:
    """An older archive comes back when it is named."""
    assert choose(NAMES, "web", _name(WEB, "web", 1)).name == _name(WEB, "web", 1)


def test_only_unfinished_archives_are_none() -> None:
    """A VM that has unfinished archives alone has nothing to restore, and the error says so."""
    with pytest.raises(ArchiveNotFound) as refusal:
        choose([unfinished(_name(WEB, "web", 9))], "web", LATEST)
    assert "1 unfinished" in refusal.value.evidence


@pytest.mark.parametrize(
    "item",
    [
        ArchiveItem("vmborg/x", "l", 0),
        ArchiveItem("vmborg/x", "h", 0),
        ArchiveItem("dev/sda", "b", 0),
        ArchiveItem("run/fifo", "p", 0),
        ArchiveItem("/etc/passwd", "-", 1),
        ArchiveItem("vmborg/../../etc/passwd", "-", 1),
        ArchiveItem("vmborg/manifest.json", "-", 1),
    ],
    ids=lambda item: f"{item.type}{item.path}",
)
def test_items_that_could_lead_outside_are_refused(item: ArchiveItem) -> None:
    """Links, devices, pipes, absolute paths, `..` and a path that comes twice are refused."""
    plain = [ArchiveItem("vmborg", "d", 0), ArchiveItem("vmborg/manifest.json", "-", 9)]
    check_items(plain)
    with pytest.raises(UnsafeArchive):
        check_items([*plain, item])
