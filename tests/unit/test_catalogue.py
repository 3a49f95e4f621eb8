"""Archives as the repositories tell of them: ours are read, everybody else's are passed over."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from infra.borg.client import ArchiveInfo
from infra.borg.names import archive_name, unfinished
from tasks.catalogue import select, vm_archives

WHEN = datetime(2026, 11, 22, 3, tzinfo=UTC)
UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
OTHER = "aaaaaaaa-0b3e-4b52-9d53-5b7a51d3a001"
COMMENT = {
    "vm": "web",
    "uuid": UUID,
    "host": "kvm1",
    "consistency": "agent",
    "frozen_ms": "12",
    "disks": "vda:1024,vdb:2048",
    "uncovered": "vdc",
}


def _info(name: str, comment: dict[str, str] | None = None) -> ArchiveInfo:
    return ArchiveInfo(name=name, time=WHEN, comment=COMMENT if comment is None else comment)


def test_a_backup_is_read_from_name_and_comment() -> None:
    """Name, time and state come from the archive's name, the rest from its comment."""
    found = vm_archives(
        "main", [_info(archive_name(UUID, "my web", WHEN)), _info(unfinished(archive_name(UUID, "w", WHEN)))]
    )
    assert [(each.vm, each.uuid, each.time, each.finished) for each in found] == [
        ("my web", UUID, WHEN, True),
        ("w", UUID, WHEN, False),
    ]
    assert (dict(found[0].disks), found[0].size, found[0].uncovered) == ({"vda": 1024, "vdb": 2048}, 3072, ("vdc",))


def test_a_comment_that_contradicts_the_name_does_not_move_an_archive() -> None:
    """The UUID of a comment counts only where it goes on as the name begins."""
    found = vm_archives("main", [_info(archive_name(UUID, "web", WHEN), {"uuid": OTHER})])
    assert (found[0].uuid, found[0].is_of(UUID), found[0].is_of(OTHER)) == (UUID[:8], True, False)


def test_others_archives_are_passed_over() -> None:
    """Dumps, foreign names and nonsense are no VM archives."""
    names = ["dump.db@2026-11-22T03:00:00Z", "web-2026", "vm.web@now", "", "vm.c1d9f5a4.a%zz@2026-11-22T03:00:00Z"]
    assert vm_archives("main", map(_info, names)) == []


@given(st.dictionaries(st.sampled_from(sorted(COMMENT)), st.text(max_size=20)))
def test_any_comment_is_read(comment: dict[str, str]) -> None:
    """Whatever a comment holds, the archive is listed under its VM."""
    found = vm_archives("main", [_info(archive_name(UUID, "web", WHEN), comment)])
    assert [(each.vm, each.is_of(UUID)) for each in found] == [("web", True)]


def test_selection_is_by_name_or_uuid() -> None:
    """A VM is chosen by its whole name or by four or more digits of its UUID; a name that looks like digits wins."""
    found = vm_archives("main", [_info(archive_name(UUID, "web", WHEN)), _info(archive_name(OTHER, "c1d9", WHEN), {})])
    assert [each.vm for each in select(found, "web")] == ["web"]
    assert [each.vm for each in select(found, "c1d9")] == ["c1d9"]
    assert [each.vm for each in select(found, "c1d9f")] == ["web"]
    assert [each.vm for each in select(found, UUID.upper())] == ["web"]
    assert [each.vm for each in select(found, OTHER)] == ["c1d9"]
    assert select(found, "we") == select(found, "c1d") == []
