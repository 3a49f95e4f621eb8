"""What is not copied, and that the remote is as it was then."""

import shutil
from datetime import timedelta
from typing import Any

import pytest

from infra.errors import ConfigError
from infra.errors_upkeep import (
    CheckStale,
    ClockSkewed,
    RemoteDenied,
    RemoteFull,
    RemoteGone,
    RemoteUnreachable,
    SegmentChanged,
    SourceSwapped,
    SourceUnfit,
)
from infra.process import run
from tests.integration.cloud.site import HOUR, MIB, NOW, VM, Site
from tests.integration.spoiling import flipped_byte, largest_segment, segments

pytestmark = pytest.mark.integration


def unmounted(site: Site) -> None:
    """The disk of the repository is not mounted."""
    site.folder.rename(site.root / "elsewhere")
    site.folder.mkdir()


def removed(site: Site) -> None:
    """The folder is gone, too."""
    site.folder.rename(site.root / "elsewhere")


def halved(site: Site) -> None:
    """Every second segment is lost."""
    for path in segments(site.folder)[:-2:2]:
        path.unlink()


def without_config(site: Site) -> None:
    """The file `config` is lost."""
    (site.folder / "config").unlink()


def swapped(site: Site) -> None:
    """Another repository is at its place."""
    site.folder.rename(site.root / "elsewhere")
    shutil.rmtree(site.root / "state")
    site.make()
    site.back_up(1, size=13 * MIB)


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (unmounted, SourceUnfit),
        (removed, SourceUnfit),
        (halved, SourceUnfit),
        (without_config, SourceUnfit),
        (swapped, SourceSwapped),
    ],
)
def test_a_bad_source_is_refused(site: Site, break_it: Any, error: type[Exception]) -> None:
    """What is not what it was is not copied: a typed error, a remedy, the remote byte for byte as before."""
    site.copy(NOW - HOUR)
    before = site.cloud.content()
    break_it(site)
    with pytest.raises(error) as caught:
        site.copy()
    assert caught.value.evidence  # type: ignore[attr-defined]
    assert caught.value.remedy  # type: ignore[attr-defined]
    assert site.cloud.content() == before


@pytest.mark.parametrize("remote", ["s3:bucket/vmborg", "crypt:vmborg", "sftp:bucket/vmborg"])
def test_a_flipped_byte_stops_everything(still: Site, remote: str) -> None:
    """A segment whose content changed while size and time stayed is found, on remotes with hashes and without."""
    site = still
    site.remote = remote
    with site.cloud.serving("s3", "sftp"):
        copied = site.copy(NOW - HOUR)
        assert copied.proof == {"s3": "hash", "crypt": "cryptcheck", "sftp": "download"}[remote.partition(":")[0]]
        before = site.cloud.content()
        site.back_up(3)
        with flipped_byte(segments(site.folder)[1]), pytest.raises(SegmentChanged) as caught:
            site.copy()
        assert "data/0/" in caught.value.evidence
        assert site.cloud.content() == before
        site.copy()
        assert site.fetch("fetched") == [VM.format(1), VM.format(2), VM.format(3)]


def test_without_a_fresh_good_check_nothing_is_copied(site: Site) -> None:
    """A check that is too old, of the future, or bad stops the copy before the remote is asked."""
    before = site.cloud.content()
    for moment in (NOW - timedelta(days=9), NOW + HOUR):
        site.check(moment)
        with pytest.raises(CheckStale):
            site.bare_copy()
    with flipped_byte(largest_segment(site.folder)), pytest.raises(Exception, match="damage"):
        site.check()
    with pytest.raises(CheckStale, match="without a fresh, good check"):
        site.bare_copy()
    assert site.cloud.content() == before


def test_a_remote_deleted_by_hand(site: Site) -> None:
    """A copy that was there and is gone is not silently made anew; --start-over does it."""
    site.copy(NOW - HOUR)
    site.cloud.delete("s3:bucket/vmborg")
    with pytest.raises(RemoteGone, match="not there any more"):
        site.copy()
    assert site.cloud.content() == {}
    site.copy(start_over=True)
    assert site.fetch("again") == [VM.format(1), VM.format(2)]


def test_a_copy_of_the_future(site: Site) -> None:
    """When the last copy is younger than now, a clock is wrong, and nothing is copied."""
    site.copy(NOW + HOUR)
    before = site.cloud.content()
    with pytest.raises(ClockSkewed):
        site.copy(NOW)
    assert site.cloud.content() == before


def test_revoked_credentials_and_a_network_that_is_cut(site: Site) -> None:
    """Both are told apart; the remote is as it was, and the next copy succeeds."""
    site.copy(NOW - HOUR)
    before = site.cloud.content()
    site.cloud.configure(secret="another one")
    with pytest.raises(RemoteDenied):
        site.copy()
    site.cloud.configure(s3_port=1)
    with pytest.raises(RemoteUnreachable) as caught:
        site.copy()
    assert caught.value.transient
    assert site.cloud.content() == before
    site.cloud.configure()
    site.copy()


def test_a_full_remote(still: Site) -> None:
    """A remote that runs full in the middle is told as such; the generation before is fetched whole."""
    disk = still.root / "small"
    disk.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=20m", "vmborg-test", str(disk)], timeout=10)
    try:
        still.cloud.config.write_text(still.cloud.config.read_text() + "\n[small]\ntype = local\n")
        still.remote = f"small:{disk}/vmborg"
        still.copy(NOW - HOUR)
        still.back_up(3, size=24 * MIB)
        with pytest.raises(RemoteFull) as caught:
            still.copy()
        assert "history_days" in caught.value.remedy
        assert still.fetch("before") == [VM.format(1), VM.format(2)]
    finally:
        run(["umount", str(disk)], timeout=10)


def test_an_open_rclone_conf_is_refused(site: Site) -> None:
    """rclone.conf holds keys: one that others can read is not used."""
    site.cloud.config.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        site.copy()
    assert f"chmod 0600 {site.cloud.config}" in caught.value.remedy
