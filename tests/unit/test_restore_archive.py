"""Which archive a restore takes, and what it does not believe of one."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.borg.client import ArchiveItem
from infra.borg.names import archive_name, unfinished
from infra.errors import ArchiveIncomplete, ArchiveNotFound, UnsafeArchive, UsageError, VmborgError
from infra.manifest import MANIFEST_PATH, expected_items
from tasks.restore.archive import (
    LATEST,
    check_items,
    choose,
    metadata_files,
    require_agreeing,
    require_short,
)
from tests.unit.manifest.sample import MANIFEST

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


def test_a_name_wins_over_the_beginning_of_another_uuid() -> None:
    """A VM that is called like the digits of another's UUID is that VM, however new the other's archives are."""
    names = [_name(WEB, "2222", 1), _name(OTHER, "other", 9)]
    assert choose(names, "2222", LATEST).name == names[0]
    assert choose(names, "22222222", LATEST).name == names[1]


def test_the_vm_that_has_the_name_here_wins_over_another_of_that_name() -> None:
    """Of two VMs of one name in a repository, the one that is defined here is meant, not the newest archive."""
    names = [_name(WEB, "web", 1), _name(OTHER, "web", 9)]
    assert choose(names, "web", LATEST, uuid=WEB).name == names[0]
    assert choose(names, "web", names[1], uuid=WEB).name == names[1]


def test_several_vms_of_one_name_are_a_question() -> None:
    """Where nothing tells which of two VMs is meant, neither is taken, and both are listed with their UUIDs."""
    names = [_name(WEB, "web", 1), _name(OTHER, "web", 9), unfinished(_name(OTHER, "web", 10))]
    with pytest.raises(UsageError, match="2 VMs") as refusal:
        choose(names, "web", LATEST)
    assert WEB[:8] in refusal.value.evidence
    assert names[1] in refusal.value.evidence
    assert choose(names, WEB[:8], LATEST).name == names[0]


def test_an_archive_is_of_the_vm_that_its_name_tells() -> None:
    """A manifest of another VM under the name of this one is refused: it would be restored over that other VM."""
    manifest = MANIFEST
    require_agreeing(archive_name(manifest.uuid, manifest.vm, manifest.created), manifest)
    for uuid, vm in ((OTHER, manifest.vm), (manifest.uuid, "another")):
        with pytest.raises(UnsafeArchive, match="another VM"):
            require_agreeing(archive_name(uuid, vm, manifest.created), manifest)


def test_metadata_that_nobody_expects_is_refused() -> None:
    """What lies below vmborg/ and is not in the manifest, or is a text of gigabytes, is refused before it is read."""
    manifest = MANIFEST
    sizes = {path: size or 10 for path, size in expected_items(manifest).items()}
    found = metadata_files(sizes, manifest)
    assert manifest.domain_xml in found
    assert MANIFEST_PATH not in found
    assert all(path.startswith("vmborg/") for path in found)
    with pytest.raises(UnsafeArchive) as refusal:
        metadata_files({**sizes, "vmborg/bomb": 10**9}, manifest)
    assert "vmborg/bomb" in refusal.value.evidence
    require_short(sizes, found)
    with pytest.raises(UnsafeArchive, match="too long"):
        require_short({**sizes, MANIFEST_PATH: 10**9}, [MANIFEST_PATH])
