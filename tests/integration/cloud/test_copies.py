"""Copies that are made, cut short, and fetched, as of any date."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.config.load import load
from infra.errors_upkeep import (
    CopyDiffers,
    GenerationNotFound,
    RemoteUnreachable,
)
from infra.rclone.command import Transfer
from infra.retention.retired import Sight
from tasks.cloud.copy import make_copy, preview
from tasks.cloud.job import open_job
from tasks.retention.outlook import View
from tasks.retention.run import prune_repository
from tests.integration.cloud.site import HOUR, MIB, NOW, VM, Site
from tests.integration.spoiling import flipped_byte, segments
from tests.integration.vmborg import vmborg

pytestmark = pytest.mark.integration


def test_a_copy_is_made_and_fetched(site: Site) -> None:
    """What was copied is fetched whole, and borg finds all archives in it; a second copy moves only what is new."""
    committed = len(segments(site.folder))
    first = site.copy()
    assert (first.proof, first.total) == ("hash", committed)
    assert site.fetch("one") == [VM.format(1), VM.format(2)]
    site.back_up(3)
    second = site.copy(NOW + HOUR)
    assert 6 * MIB < second.size < 8 * MIB
    assert site.fetch("two") == [VM.format(1), VM.format(2), VM.format(3)]
    lock_files = [name for name in site.cloud.content() if "lock." in name]
    assert lock_files == []


def test_generations_of_a_date(site: Site) -> None:
    """The copy of a date is fetched as it was then, after archives were pruned and segments compacted away."""
    site.copy(NOW)
    site.back_up(3)
    site.copy(NOW + HOUR)
    view = View(Sight("kvm1", None), {}, NOW)
    pruned = prune_repository(load(site.path), "main", view)
    assert len(pruned.deleted) == 2
    third = site.copy(NOW + 2 * HOUR)
    assert third.deleted > 5
    assert site.fetch("newest") == [VM.format(3)]
    assert site.fetch("second", at=NOW + HOUR) == [VM.format(1), VM.format(2), VM.format(3)]
    assert site.fetch("first", at=NOW + HOUR / 2) == [VM.format(1), VM.format(2)]
    with pytest.raises(GenerationNotFound, match="There is no copy of"):
        site.fetch("none", at=NOW - HOUR)


def test_history_expires(site: Site) -> None:
    """Generations older than history_days go, with what only they needed; those that stay can be fetched."""
    site.copy(NOW - timedelta(days=40))
    site.back_up(3)
    site.copy(NOW - timedelta(days=20))
    site.back_up(4)
    last = site.copy(NOW)
    assert len(last.expired) == 1
    assert site.fetch("middle", at=NOW - timedelta(days=19)) == [VM.format(day) for day in (1, 2, 3)]
    with pytest.raises(GenerationNotFound):
        site.fetch("gone", at=NOW - timedelta(days=30))


def test_a_copy_that_is_cut_short(still: Site) -> None:
    """The server dies in the middle: the generation before is fetched whole, and the next copy goes on from there."""
    site = still
    with site.cloud.serving() as servers:
        site.copy(NOW - HOUR)
        site.back_up(3, size=24 * MIB)
        before = site.cloud.content()
        site.limits = {"bandwidth": "6M", "stall": "5s", "transfers": 1}
        job = open_job(load(site.path), "offsite", NOW)

        def cutting(phase: str) -> Any:
            def tell(transfer: Transfer) -> None:
                if phase == "copying" and transfer.done > 14 * MIB:
                    servers["s3"].kill()

            return tell

        with pytest.raises(RemoteUnreachable):
            make_copy(job, start_over=False, allow_shrink=False, teller=cutting)
    assert len(site.cloud.content()) > len(before)
    site.limits = {}
    with site.cloud.serving():
        assert site.fetch("before") == [VM.format(1), VM.format(2)]
        again = site.copy(NOW + HOUR)
        assert again.size < 24 * MIB
        assert site.fetch("after") == [VM.format(1), VM.format(2), VM.format(3)]


def test_a_damaged_copy_is_not_called_whole(site: Site) -> None:
    """A file that was lost or changed on the remote fails the fetch, by name or by borg's own check."""
    site.copy()
    victim = max(
        (site.cloud.served / "bucket/vmborg/current/data").rglob("[0-9]*"), key=lambda path: path.stat().st_size
    )
    with flipped_byte(victim), pytest.raises(CopyDiffers, match="damaged there"):
        site.fetch("flipped")
    site.cloud.delete(f"s3:bucket/vmborg/current/data/0/{victim.name}")
    with pytest.raises(CopyDiffers) as caught:
        site.fetch("lost files")
    assert f"data/0/{victim.name}" in caught.value.evidence


def test_sync_as_a_user_runs_it(site: Site) -> None:
    """--dry-run changes nothing and tells what would be; sync copies; sync restore fetches; secrets stay unseen."""
    site.check(datetime.now(UTC))
    dry = vmborg("sync", "--dry-run", "--json", config=site.path, timeout=120)
    assert (dry.code, dry.document["copies"][0]["result"]["proof"]) == (0, "")
    assert site.cloud.content() == {}
    job = open_job(load(site.path), "offsite", datetime.now(UTC))
    assert preview(job, start_over=False, allow_shrink=False).size == dry.document["copies"][0]["result"]["size"]
    done = vmborg("sync", "offsite", "--json", config=site.path, timeout=120)
    assert (done.code, done.document["copies"][0]["result"]["proof"]) == (0, "hash")
    fetched = vmborg("sync", "restore", "offsite", "--to", site.root / "back", "--json", config=site.path)
    assert (fetched.code, fetched.document["fetched"]["archives"]) == (0, 2)
    again = vmborg("sync", "restore", "offsite", "--to", site.root / "back", config=site.path)
    assert (again.code, again.voices()[0]) == (1, f"{site.root / 'back'} is not an empty folder.")
    assert vmborg("sync", "nowhere", config=site.path).code == 2
