"""Putting back a guest that works: paused by a full disk, frozen by a dead run, its agent hung."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from infra.errors import AgentUnresponsive, CommitFailed, ThawUnconfirmed
from infra.hypervisor.commit_live import Deadlines
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.put_back import put_back
from infra.model import JournalEntry, Overlay
from tests.guests import Boot, Daemons, DiskSpec, Guest, domain_xml, make_disk, virsh, wait_for
from tests.integration.bare import MIB, begin_run, small_filesystem

pytestmark = pytest.mark.integration

URI = "qemu:///system"


@pytest.fixture(scope="module")
def places(daemons: Daemons, images: Path) -> Iterator[dict[str, Path]]:  # noqa: ARG001 - must run
    """Where disks and overlays go: `big`, and two file systems of 48 MiB, `small` and `tight`."""
    with ExitStack() as mounted:
        yield {
            "big": images,
            "small": mounted.enter_context(small_filesystem(images, 48 * MIB)),
            "tight": mounted.enter_context(small_filesystem(images, 48 * MIB)),
        }


@pytest.fixture(scope="module")
def running(boot: Boot, places: dict[str, Path]) -> Iterator[Guest]:
    """A guest with vda (qcow2) on `big` and vdb (raw, sparse) on `tight`."""
    disks = [
        DiskSpec("vda", make_disk(places["big"] / "vda.qcow2", size=128 * MIB)),
        DiskSpec("vdb", make_disk(places["tight"] / "vdb.raw", size=128 * MIB, format="raw"), format="raw"),
    ]
    xml = domain_xml("act-put-back", boot=boot, disks=disks, serial_log=places["big"] / "put-back.log")
    with Guest.define(URI, xml) as guest:
        guest.start()
        guest.wait_agent()
        guest.wait_ready()
        yield guest


@pytest.fixture
def guest(running: Guest, places: dict[str, Path]) -> Iterator[Guest]:
    """The guest; after the test it is on its own disks, counts, and nothing of the run is left."""
    yield running
    assert not list(places["big"].glob("**/*00c0ffee*"))
    for options in ([], ["--inactive"]):
        assert "00c0ffee" not in virsh(URI, "domblklist", running.uuid, *options)
    running.wait_agent()
    running.wait_counter_moves()


@pytest.fixture
def hypervisor() -> Iterator[Hypervisor]:
    """A connection."""
    with Hypervisor.open(URI) as hypervisor:
        yield hypervisor


@pytest.fixture
def domain(hypervisor: Hypervisor, guest: Guest) -> Domain:
    """The guest as vmborg sees it."""
    return hypervisor.by_uuid(guest.uuid)


back = partial(put_back, deadlines=Deadlines(commit=60, pivot=20, pause=0))


def fill(guest: Guest, target: str, mebibytes: int) -> None:
    """Let the guest write until its disk gives an error and qemu pauses it."""
    path = f"/data/{target}/load"
    command = f"dd if=/dev/urandom of={path} bs=1M count={mebibytes} conv=fsync; rm {path}"
    guest.agent("guest-exec", path="sh", arg=["-c", command])
    guest.wait_state("paused", timeout=60)


def test_a_guest_that_a_full_overlay_paused_is_resumed(
    hypervisor: Hypervisor, domain: Domain, guest: Guest, places: dict[str, Path]
) -> None:
    """With its base elsewhere the overlay is committed, the guest goes on, and nothing it wrote is lost."""
    entry = begin_run(domain, places["big"], places={"vda": places["small"], "vdb": places["big"]})
    fill(guest, "vda", 64)

    report = back(hypervisor, entry)

    assert "resumed the guest, which an I/O error had paused" in report.actions
    assert guest.state() == "running"
    guest.wait_agent()
    wait_for(lambda: guest.exec(["test", "-e", "/data/vda/load"])[0] == 1, timeout=60, what="end of the guest's write")


def test_a_guest_that_was_paused_before_is_not_resumed(
    hypervisor: Hypervisor, domain: Domain, guest: Guest, places: dict[str, Path]
) -> None:
    """An I/O error that paused the guest before the backup is not ours to forgive."""
    entry = begin_run(domain, places["big"], places={"vda": places["small"], "vdb": places["big"]})
    fill(guest, "vda", 64)
    back(hypervisor, replace(entry, was_running=False))
    assert guest.state() == "paused"
    virsh(URI, "resume", guest.uuid)


def test_a_full_file_system_of_both_is_healed_once_there_is_space(
    hypervisor: Hypervisor, domain: Domain, guest: Guest, places: dict[str, Path]
) -> None:
    """Overlay and sparse base on one full file system: the commit fails and says so; with space freed all goes on."""
    filler = places["tight"] / "filler"
    filler.write_bytes(bytes(24 * MIB))
    entry = begin_run(domain, places["big"])
    fill(guest, "vdb", 30)

    with pytest.raises(CommitFailed) as caught:
        back(hypervisor, entry)

    assert "paused" in caught.value.evidence
    assert "bytes free" in caught.value.evidence
    assert guest.state() == "paused"
    filler.unlink()
    report = back(hypervisor, entry)
    assert "resumed the guest, which an I/O error had paused" in report.actions
    guest.wait_agent()
    wait_for(lambda: guest.exec(["test", "-e", "/data/vdb/load"])[0] == 1, timeout=60, what="end of the guest's write")


@pytest.mark.parametrize("snapshotted", [False, True])
def test_a_guest_that_a_dead_run_froze_is_thawed(
    hypervisor: Hypervisor, domain: Domain, guest: Guest, places: dict[str, Path], *, snapshotted: bool
) -> None:
    """Before anything else it is thawed, and the journal is told so."""
    entry = replace(begin_run(domain, places["big"]), freeze=True)
    if not snapshotted:
        back(hypervisor, replace(entry, freeze=False))
    assert guest.agent("guest-fsfreeze-freeze") == 2
    saved: list[JournalEntry] = []

    report = back(hypervisor, entry, save=saved.append)

    assert guest.agent("guest-fsfreeze-status") == "thawed"
    assert report.actions[0] == "thawed 2 file systems of the guest"
    assert not saved[0].freeze
    assert saved[0].overlays == entry.overlays


def test_a_hung_agent_does_not_keep_the_disks_from_being_put_back(  # noqa: PLR0917 - fixtures
    hypervisor: Hypervisor,
    domain: Domain,
    guest: Guest,
    places: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The overlays go; that the guest may be frozen is the error, until the agent answers again."""
    monkeypatch.setattr("infra.hypervisor.put_back.THAW_S", 0.0)
    entry = replace(begin_run(domain, places["big"]), freeze=True)
    assert guest.exec(["agent-pause", "20"])[0] == 0
    wait_for(lambda: not_answering(domain), timeout=60, what="the stopped agent")
    saved: list[JournalEntry] = []

    with pytest.raises(ThawUnconfirmed):
        back(hypervisor, entry, save=saved.append)

    assert not any(overlay_left(overlay) for overlay in entry.overlays)
    assert saved[-1].freeze
    guest.wait_agent()
    assert back(hypervisor, saved[-1], save=saved.append).actions == ()
    assert not saved[-1].freeze


def not_answering(domain: Domain) -> bool:
    """Whether the agent's process is stopped."""
    try:
        domain.agent_ping(timeout=1)
    except AgentUnresponsive:
        return True
    return False


def overlay_left(overlay: Overlay) -> bool:
    """Whether its file is there."""
    return Path(overlay.path).exists()
