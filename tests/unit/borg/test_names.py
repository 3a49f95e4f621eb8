"""Archive names: one name a source, reversible, and no glob of one source meets another's archive."""

import re
from datetime import UTC, datetime, timedelta, timezone
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from infra.borg.names import archive_glob, archive_name, decode, encode, parse_archive_name, unfinished
from infra.errors import UsageError

UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
WHEN = datetime(2026, 11, 22, 21, 0, 5, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - a zone follows


@given(TEXTS)
@example("a b")
@example("a::b")
@example("%41")
@example("-x")
@example("..")
@example("web@2026-01-01T00:00:00Z")
@example("\x9b31m\u202egnp.exe\u2028\ufeff")
def test_encoding_is_reversible(name: str) -> None:
    """Decoding gives back every name that was encoded."""
    assert decode(encode(name)) == name


@given(TEXTS)
@example("{now}")
@example("a::b")
@example("-rf")
@example("\u202eevil\u00a0")
def test_encoded_is_safe(name: str) -> None:
    """An encoded name holds nothing that borg, a glob, a path, a shell option or a terminal takes for its own."""
    encoded = encode(name)
    assert re.search(r"[\s{}/*?\[\]@:\\'\"`$&|;<>()!#\x00-\x20\x7f-\xa0]", encoded) is None
    assert encoded.isprintable()
    assert encoded[0] not in "-."


@given(TEXTS, TEXTS)
@example("web", "web-2")
@example("web", "web@")
@example("web", "web*")
@example("a", "A")
def test_glob_meets_only_its_own(one: str, other: str) -> None:
    """The glob of one source matches its own archives and never those of another source of the same UUID."""
    assume(one != other)
    glob = archive_glob(UUID, one)
    assert fnmatchcase(archive_name(UUID, one, WHEN), glob)
    assert fnmatchcase(unfinished(archive_name(UUID, one, WHEN)), glob)
    assert not fnmatchcase(archive_name(UUID, other, WHEN), glob)


def test_glob_of_another_uuid_does_not_match() -> None:
    """Two VMs of one name on two hypervisors stay apart."""
    assert not fnmatchcase(archive_name(UUID, "web", WHEN), archive_glob("0" * 36, "web"))


@given(TEXTS, TIMES)
def test_name_is_read_back(name: str, when: datetime) -> None:
    """Kind, UUID, source, time and whether it is finished are read back from the name."""
    text = archive_name(UUID, name, when)
    for full, finished in ((text, True), (unfinished(text), False)):
        parsed = parse_archive_name(full)
        assert parsed is not None
        assert (parsed.kind, parsed.uuid8, parsed.source) == ("vm", UUID[:8], name)
        assert (parsed.when, parsed.finished) == (when.replace(microsecond=0), finished)


@pytest.mark.parametrize(("name", "fits"), [("x" * 211, True), ("x" * 212, False), (" " * 70, True), (" " * 71, False)])
def test_length(name: str, fits: bool) -> None:  # noqa: FBT001 - an expected value
    """A name that borg would refuse after the copy is refused before it, and what to do is said."""
    if fits:
        assert len(unfinished(archive_name(UUID, name, WHEN))) <= 255
        return
    with pytest.raises(UsageError) as caught:
        archive_name(UUID, name, WHEN)
    assert caught.value.remedy


def test_time_is_utc() -> None:
    """A time of another zone is told in UTC."""
    when = datetime(2026, 11, 22, 23, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert archive_name(UUID, "web", when) == "vm.c1d9f5a4.web@2026-11-22T21:00:05Z"


def test_dump_names_are_read() -> None:
    """A dump's name has no UUID and is told apart from a VM's."""
    for host in ("db01.example.org", "deadbeef.example.org"):
        parsed = parse_archive_name(f"dump.{host}@2026-11-22T21:00:05Z")
        assert parsed is not None
        assert (parsed.kind, parsed.uuid8, parsed.source) == ("dump", "", host)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web",
        "vm.web@2026-11-22T21:00:05Z",
        "vm.c1d9f5a4.@2026-11-22T21:00:05Z",
        "vm.c1d9f5a4.web",
        "vm.c1d9f5a4.web@2026-11-22",
        "vm.c1d9f5a4.web@2026-13-22T21:00:05Z",
        "vm.c1d9f5a4.web@2026-11-22T21:00:05Z.unfinished.unfinished",
        "vm.c1d9f5a4.web@2026-11-22T21:00:05Z\n",
        "vm.c1d9f5a4.%41@2026-11-22T21:00:05Z",
        "vm.c1d9f5a4.%4@2026-11-22T21:00:05Z",
        "vm.c1d9f5a4.a b@2026-11-22T21:00:05Z",
        "vm.c1d9f5a4.web@2026-11-22T21:00:0\u0665Z",
        "VM.c1d9f5a4.web@2026-11-22T21:00:05Z",
    ],
)
def test_foreign_names_are_none(text: str) -> None:
    """What we never make is not taken for ours: another form of the same source would escape its glob."""
    assert parse_archive_name(text) is None


@given(st.text(max_size=80))
def test_no_text_is_too_strange(text: str) -> None:
    """Any text is either one of ours, and then exactly as we would write it, or None."""
    parsed = parse_archive_name(text)
    assert parsed is None or text.startswith((f"vm.{parsed.uuid8}.{encode(parsed.source)}@", "dump."))


@given(st.text(max_size=30))
def test_decode_refuses_what_encode_never_makes(text: str) -> None:
    """Decoding either fails with ValueError or is undone by encoding."""
    try:
        name = decode(text)
    except ValueError:
        return
    assert encode(name) == text
