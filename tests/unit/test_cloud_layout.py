"""Which files make up a generation, when it may go, and what is refused before a copy: all without a remote."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import ConfigError, VmborgError
from infra.errors_upkeep import (
    ClockSkewed,
    CloudError,
    CopyDiffers,
    RemoteDenied,
    RemoteFull,
    RemoteGone,
    RemoteUnreachable,
    SourceUnfit,
)
from infra.rclone.command import parse_line
from infra.rclone.failures import failure
from tasks.cloud.layout import Listing, choose, origins, outdated, parse_listing, render_listing, stamp_of
from tasks.cloud.sanity import Explained, plan_copy, read_source, require_known

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
CONFIG = "[repository]\nversion = 1\nid = abc\n"
names = st.sampled_from([f"data/0/{number}" for number in range(6)] + ["config", "nonce", "index.5"])
states = st.lists(st.dictionaries(names, st.integers(1, 9), min_size=1), min_size=1, max_size=6)


@given(states, st.data())
def test_every_generation_can_be_put_together(contents: list[dict[str, int]], data: st.DataObject) -> None:
    """After any row of copies, also ones cut short at any file, each noted generation is found content by content.

    The remote is played by three dictionaries that change as rclone's --backup-dir changes folders.
    """
    current: dict[str, int] = {}
    histories: dict[str, dict[str, int]] = {}
    listings: dict[str, Listing] = {}
    truth: dict[str, dict[str, int]] = {}
    for index, content in enumerate(contents):
        stamp = stamp_of(NOW + timedelta(hours=index))
        steps = [name for name in sorted({*current, *content}) if current.get(name) != content.get(name)]
        whole = data.draw(st.booleans())
        for name in steps if whole else steps[: data.draw(st.integers(0, len(steps)))]:
            if name in current:
                histories.setdefault(stamp, {})[name] = current.pop(name)
            if name in content:
                current[name] = content[name]
        if whole:
            listings[stamp], truth[stamp] = Listing(stamp, "abc", dict.fromkeys(content, 1), {}), content
    places = {"current": current, **{f"history/{stamp}": files for stamp, files in histories.items()}}
    for stamp, listing in listings.items():
        found = {name: places[place][name] for place, each in origins(listing, histories).items() for name in each}
        assert found == truth[stamp]


@given(
    st.sets(st.integers(0, 100), max_size=20).map(sorted),
    st.sets(st.integers(0, 100), max_size=20).map(sorted),
    st.integers(1, 50),
)
def test_what_expires_is_needed_by_nobody(listed: list[int], moved: list[int], days: int) -> None:
    """The newest generation stays, as do those within the days; no history goes that a staying one needs."""
    listings = [stamp_of(NOW - timedelta(days=age)) for age in listed]
    histories = [stamp_of(NOW - timedelta(days=age)) for age in moved]
    gone, dropped = outdated(listings, histories, now=NOW, days=days)
    staying = sorted(set(listings) - set(gone))
    assert not listings or max(listings) in staying
    assert all(stamp < stamp_of(NOW - timedelta(days=days)) for stamp in [*gone, *dropped])
    assert not staying or all(stamp <= staying[0] for stamp in dropped)


def test_a_listing_from_a_stranger_is_not_trusted() -> None:
    """What is no listing, or leads out of the folder, is refused; a good one is read back."""
    good = Listing("2026-11-24T120000Z", "abc", {"config": 1, "data/0/1": 5}, {"data/0/1": "ff"})
    assert parse_listing(good.stamp, render_listing(good)) == good
    for text in ("", "[]", '{"version": 2}', render_listing(good).replace("config", "../config")):
        with pytest.raises(CopyDiffers):
            parse_listing("x", text)


def test_the_generation_of_a_date() -> None:
    """The newest one, or the newest that is not younger than the date; what is no stamp is passed over."""
    stamps = ["2026-11-01T000000Z", "2026-11-02T000000Z", "rubbish"]
    assert choose(stamps, None) == stamps[1]
    assert choose(stamps, datetime(2026, 11, 1, 23, tzinfo=UTC)) == stamps[0]


def test_only_what_is_committed_is_copied() -> None:
    """Segments above the index's number, locks, and strangers below data/ are left out."""
    files = {"config": 9, "nonce": 1, "index.5": 9, "data/0/4": 9, "data/0/5": 9, "data/0/6": 9, "data/0/x": 9}
    source = read_source({**files, "lock.roster": 1, "lock.exclusive/host.1-0": 0}, CONFIG, "/r")
    assert sorted(source.segments) == ["data/0/4", "data/0/5"]
    assert sorted(source.others) == ["config", "index.5", "nonce"]
    assert sorted(source.uncommitted) == ["data/0/6", "data/0/x"]
    for lost in ("index.5", "data"):
        with pytest.raises(SourceUnfit):
            read_source({name: size for name, size in files.items() if not name.startswith(lost)}, CONFIG, "/r")
    with pytest.raises(SourceUnfit):
        read_source(files, "rubbish", "/r")


def test_what_prune_explains() -> None:
    """A loss is refused above the limits, and let through when prunes have freed as much."""
    there = {f"data/0/{number}": 10 for number in range(10)}
    half = read_source({"index.9": 1} | dict.fromkeys(list(there)[::2], 10), CONFIG, "/r")
    for explained in (Explained(), Explained(size=50), Explained(segments=5)):
        with pytest.raises(SourceUnfit):
            plan_copy(half, there, explained, max_delete=30, max_shrink=10, place="/r")
    plan = plan_copy(half, there, Explained(size=50, segments=5), max_delete=30, max_shrink=10, place="/r")
    assert (len(plan.gone), len(plan.common), plan.new) == (5, 5, {})


def test_a_remote_that_is_gone() -> None:
    """Empty is good for a first copy, and an error when there was one; data without config always is an error."""
    require_known({}, remembered="", remote="s3:x")
    require_known({"config": 1}, remembered="2026", remote="s3:x")
    for there, remembered in (({}, "2026"), ({"data/0/1": 1}, "")):
        with pytest.raises(RemoteGone):
            require_known(there, remembered=remembered, remote="s3:x")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("api error SignatureDoesNotMatch: The request signature", RemoteDenied),
        ("StatusCode: 403, api error AccessDenied", RemoteDenied),
        ("ssh: handshake failed: ssh: unable to authenticate", RemoteDenied),
        ("api error RequestTimeTooSkewed: The difference", ClockSkewed),
        ("write /mnt/x: no space left on device", RemoteFull),
        ("preallocate: file too big for remaining disk space", RemoteFull),
        ("StatusCode: 507, api error XMinioStorageFull", RemoteFull),
        ("googleapi: Error 403: storageQuotaExceeded", RemoteFull),
        ("dial tcp 127.0.0.1:1: connect: connection refused", RemoteUnreachable),
        ("dial tcp: lookup nowhere: no such host", RemoteUnreachable),
        ("corrupted on transfer: md5 hashes differ", CopyDiffers),
        ('didn\'t find section in config file ("s4")', ConfigError),
        ("something new", CloudError),
    ],
)
def test_what_rclone_says_has_a_class(text: str, kind: type[VmborgError]) -> None:
    """Each known text of rclone's backends becomes its error, with evidence and a remedy; others a CloudError."""
    error = failure(["rclone", "sync"], 1, [text], remote="s3:bucket")
    assert type(error) is kind
    assert text in error.evidence
    assert error.remedy


@given(st.text())
def test_any_line_of_rclone_is_read(line: str) -> None:
    """Whatever rclone writes, a line has a level and a message, and breaks nothing."""
    level, message, _ = parse_line(line)
    assert isinstance(level + message, str)


def test_statistics_are_read() -> None:
    """Bytes, total, speed and remaining time come from the line that tells them."""
    line = '{"level":"notice","msg":"x","stats":{"bytes":5,"totalBytes":9,"speed":2.5,"eta":2}}'
    _, _, found = parse_line(line)
    assert found is not None
    assert (found.done, found.total, found.speed, found.eta) == (5, 9, 2.5, 2.0)
