"""The journal: what is written is what is read, and what cannot be read is kept and named."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import DomainBusy, JournalError
from infra.journal.locks import domain_lock
from infra.journal.store import Journal
from infra.model import ImageKind, JournalEntry, Overlay, Phase

UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
OTHER = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a002"
ENTRY = JournalEntry(
    run_id="00ff00ff",
    uuid=UUID,
    name="web ünïcode %@ -x",
    hypervisor="kvm1",
    started=datetime(2026, 11, 22, 21, 0, 5, tzinfo=UTC),
    phase=Phase.PREPARED,
    overlays=(
        Overlay("vda", "/images/web.qcow2", ImageKind.FILE, "qcow2", "/images/web.vda.vmborg-00ff00ff.qcow2"),
        Overlay("vdb", "/dev/vg/data", ImageKind.BLOCK, "raw", "/images/data.vdb.vmborg-00ff00ff.qcow2"),
    ),
    freeze=True,
    repository="main",
    archive="vm.x@y.unfinished",
    life="boot 17 4711",
    pivoting=(("vda", "boot 17 4711"),),
    settled=(("vdb", 1_700_000_000_000_000_000, 196_608),),
    paused=True,
)
Edit = Callable[[dict], None]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal whose folder does not exist yet."""
    return Journal(tmp_path / "state" / "journal")


def test_an_entry_comes_back_as_written(journal: Journal) -> None:
    """Reading gives the entry that was written, and nothing for another domain."""
    journal.write(ENTRY)
    assert journal.read(UUID) == ENTRY
    assert journal.read(OTHER) is None


_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(
    name=_texts,
    paths=st.lists(_texts, min_size=2, max_size=6, unique=True).filter(lambda each: len(each) % 2 == 0),
    phase=st.sampled_from(Phase),
    freeze=st.booleans(),
    started=st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds it
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_entry_comes_back(
    tmp_path: Path, *, name: str, paths: list[str], phase: Phase, freeze: bool, started: datetime
) -> None:
    """Whatever a domain and its files are called, the entry survives the way to disk and back."""
    journal = Journal(tmp_path / "any")
    overlays = tuple(
        Overlay(f"vd{index}", f"/{base}", ImageKind.FILE, "raw", f"/{path}")
        for index, (base, path) in enumerate(zip(paths[::2], paths[1::2], strict=True))
    )
    entry = replace(ENTRY, name=name, overlays=overlays, phase=phase, freeze=freeze, started=started)
    journal.write(entry)
    assert journal.read(UUID) == entry


def test_an_entry_from_before_replicas_is_read(journal: Journal) -> None:
    """What an earlier vmborg wrote, without the names of replicas, is still put back."""
    journal.write(replace(ENTRY, replicas=("second",)))
    path = journal.path(UUID)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["entry"].pop("replicas") == ["second"]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert journal.read(UUID) == ENTRY


def test_nobody_else_can_read_it(journal: Journal) -> None:
    """The folder is 0700 and the file 0600, also where the folder was open before."""
    journal.directory.mkdir(parents=True, mode=0o755)
    journal.write(ENTRY)
    assert stat.S_IMODE(journal.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(journal.path(UUID).stat().st_mode) == 0o600


def test_a_write_that_dies_leaves_the_entry_before_it(journal: Journal) -> None:
    """A half-written file beside the entry is neither read nor in the way of the next write."""
    journal.write(ENTRY)
    journal.path(UUID).with_name(f"{UUID}.json.new").write_text('{"version": 1, "ent')
    assert journal.read(UUID) == ENTRY
    assert journal.entries() == ((ENTRY,), ())
    journal.write(replace(ENTRY, phase=Phase.SNAPSHOTTED))
    assert journal.read(UUID) == replace(ENTRY, phase=Phase.SNAPSHOTTED)


def test_file_and_folder_are_on_disk_before_write_returns(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """write() syncs the new file, gives it its name, then syncs the folder, in that order."""
    journal.directory.mkdir(parents=True)
    calls: list[tuple[str, str]] = []
    sync, replace_file = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        sync(descriptor)

    def rename(source: Path, target: Path) -> None:
        calls.append(("rename", str(target)))
        replace_file(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    journal.write(ENTRY)
    file = str(journal.path(UUID))
    assert calls == [("sync", f"{file}.new"), ("rename", file), ("sync", str(journal.directory))]


def _raw(text: str) -> bytes:
    return text.encode()


def _edited(**changes: object) -> bytes:
    entry = {
        "run_id": "1", "uuid": UUID, "name": "n", "hypervisor": "h", "started": "2026-11-22T21:00:05Z",
        "phase": "prepared", "overlays": [],
    }  # fmt: skip
    return _raw(json.dumps({"version": 1, "entry": entry | changes}))


_DISK = {"target": "vda", "base": "/a", "base_kind": "file", "base_format": "raw", "path": "/b"}
GARBAGE = {
    "empty": b"",
    "torn": _edited()[:-20],
    "binary": b"\x00\xff\xfe",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no version": b"{}",
    "of a later version": _raw('{"version": 2, "entry": {}}'),
    "a version that is only equal": _raw('{"version": true, "entry": {}}'),
    "without entry": _raw('{"version": 1}'),
    "an unknown phase": _edited(phase="lost"),
    "of another domain": _edited(uuid=OTHER),
    "a time without zone": _edited(started="2026-11-22T21:00:05"),
    "a relative overlay": _edited(overlays=[_DISK | {"path": "b"}]),
    "a NUL in a path": _edited(overlays=[_DISK | {"path": "/b\0"}]),
    "an overlay that is its own base": _edited(overlays=[_DISK | {"path": "/a"}]),
    "a disk twice": _edited(overlays=[_DISK, _DISK | {"base": "/c", "path": "/d"}]),
    "a file twice": _edited(overlays=[_DISK, _DISK | {"target": "vdb", "path": "/c"}]),
}


def test_the_garbage_is_garbage_for_one_reason() -> None:
    """What the bad files were made from is good."""
    assert _edited(overlays=[_DISK]).startswith(b'{"version": 1')


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_named_and_kept(journal: Journal, raw: bytes) -> None:
    """A file that means nothing raises an error with its name on read, write and close, and stays."""
    journal.directory.mkdir(parents=True)
    path = journal.path(UUID)
    path.write_bytes(raw)
    for act in (lambda: journal.read(UUID), lambda: journal.write(ENTRY), lambda: journal.close(UUID)):
        with pytest.raises(JournalError) as caught:
            act()
        assert str(path) in caught.value.brief
        assert caught.value.evidence
        assert caught.value.remedy
    assert path.read_bytes() == raw


@given(raw=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["version", "entry", "uuid", "overlays", "started", "phase"]), inner, max_size=4
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_is_an_entry_or_a_journal_error(tmp_path: Path, raw: bytes) -> None:
    """No content of a journal file gets another error out of it than JournalError."""
    journal = Journal(tmp_path)
    journal.path(UUID).write_bytes(raw)
    found = journal.entries()
    assert len(found.entries) + len(found.problems) == 1


def test_one_bad_file_does_not_hide_the_others(journal: Journal) -> None:
    """entries() gives the good ones and tells the bad one by name."""
    journal.write(ENTRY)
    journal.path(OTHER).write_text("?")
    (journal.directory / "README").write_text("not ours")
    found = journal.entries()
    assert found.entries == (ENTRY,)
    assert [OTHER in problem.brief for problem in found.problems] == [True]


def test_an_empty_or_missing_journal_is_empty(journal: Journal) -> None:
    """Before the first backup there is nothing, and that is no error."""
    assert journal.entries() == ((), ())
    journal.close(UUID)


def test_an_open_entry_of_another_run_is_not_overwritten(journal: Journal) -> None:
    """A run that did not recover first cannot lose the overlays of the run before it."""
    journal.write(ENTRY)
    with pytest.raises(JournalError, match="still holds the run 00ff00ff"):
        journal.write(replace(ENTRY, run_id="11111111"))
    assert journal.read(UUID) == ENTRY


def test_a_closed_entry_is_gone(journal: Journal) -> None:
    """close() removes the entry, and again does nothing."""
    journal.write(ENTRY)
    journal.close(UUID)
    journal.close(UUID)
    assert journal.read(UUID) is None
    assert list(journal.directory.iterdir()) == []


@pytest.mark.parametrize("uuid", ["../x", "", UUID.upper(), f"{UUID}\n", "x" * 36])
def test_only_a_uuid_becomes_a_file_name(journal: Journal, uuid: str) -> None:
    """A name that is no canonical UUID cannot lead out of the journal's folder."""
    with pytest.raises(JournalError, match="no UUID"):
        journal.read(uuid)


def test_a_journal_that_cannot_be_written_says_so(journal: Journal) -> None:
    """A file where the folder should be is an error with the path, not a traceback."""
    journal.directory.parent.mkdir(parents=True)
    journal.directory.write_text("in the way")
    with pytest.raises(JournalError) as caught:
        journal.write(ENTRY)
    assert str(journal.directory) in caught.value.evidence
    assert [str(journal.directory) in problem.evidence for problem in journal.entries().problems] == [True]


def test_a_held_domain_is_busy(tmp_path: Path) -> None:
    """A second holder is refused and told the pid of the first; afterwards the domain is free."""
    with domain_lock(tmp_path / "locks", UUID, "web"):
        with pytest.raises(DomainBusy) as caught, domain_lock(tmp_path / "locks", UUID, "web"):
            pass
        assert f"pid {os.getpid()} since 2" in caught.value.evidence
        with domain_lock(tmp_path / "locks", OTHER, "web-2"):
            pass
    with domain_lock(tmp_path / "locks", UUID, "web"):
        pass


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    """kill -9 of the holder frees the domain, though a child of its lives on."""
    script = (
        "import subprocess, sys; from pathlib import Path; from infra.journal.locks import domain_lock\n"
        f"with domain_lock(Path({str(tmp_path)!r}), {UUID!r}, 'web'):\n"
        "    child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin
    assert holder.stdout
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(DomainBusy, match=f"pid {holder.pid}"), domain_lock(tmp_path, UUID, "web"):
            pass
        holder.kill()
        holder.wait()
        with domain_lock(tmp_path, UUID, "web"):
            pass
        os.kill(child, 0)  # it does live on
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
        os.kill(child, 9)
