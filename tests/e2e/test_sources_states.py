"""Whatever state a VM is in, its backup leaves it in that state and says what the archive is like."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.checks import sources
from tests.e2e.held import hold_borg
from tests.e2e.sources import MIB, Sources, assert_holds, bare_xml, disk, fill_image
from tests.guests import Guest, virsh
from tests.integration.bare import digest

pytestmark = pytest.mark.e2e

READ_FOR_A_WHILE = 128 * MIB


@dataclass
class BackedUp:
    """VMs in every state, what their images were before anything was done, and how the backup of each ended."""

    guests: dict[str, Guest]
    bases: dict[str, dict[str, str]]
    outcomes: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def first(host: Sources) -> BackedUp:
    """Each on vda (and `states-off` on vdb too), all backed up by one command."""
    off = [disk("vda", host.image("off.qcow2", fill=1)), disk("vdb", host.image("off.raw", "raw", fill=2), "raw")]
    names = ("states-running", "states-paused", "states-saved")
    guests = {name: host.define(name, disk("vda", host.image(f"{name}.qcow2", fill=3))) for name in names}
    guests["states-off"] = host.define("states-off", *off)
    guests["states-running"].start()
    guests["states-paused"].start(paused=True)
    guests["states-saved"].start()
    virsh(host.uri, "managedsave", "states-saved")
    transient = bare_xml("states-transient", disk("vda", host.image("transient.qcow2", fill=4)))
    guests["states-transient"] = host.enter(Guest.create(host.uri, transient))
    bases = {name: sources(guest) for name, guest in guests.items()}
    return BackedUp(guests, bases, host.backup(*guests))


def consistency(outcome: dict[str, Any]) -> tuple[str, str]:
    """The archive's consistency and the reason."""
    return outcome["result"]["consistency"], outcome["result"]["consistency_reason"]


def read(outcome: dict[str, Any]) -> dict[str, int]:
    """Bytes read from storage for the archive, by disk target."""
    return {each["target"]: each["read"] for each in outcome["result"]["disks"]}


STATES = [
    ("states-running", "running"),
    ("states-paused", "paused"),
    ("states-off", "shut off"),
    ("states-saved", "shut off"),
    ("states-transient", "running"),
]


@pytest.mark.parametrize(("name", "state"), STATES)
def test_the_vm_is_as_before(name: str, state: str, host: Sources, first: BackedUp) -> None:
    """After its backup a VM is in the state it was in, on its own images, with nothing of the run left."""
    assert first.outcomes[name]["state"] == "complete"
    assert first.guests[name].state() == state
    host.assert_on_bases(first.guests[name], first.bases[name])


def test_the_archive_says_how_still_the_guest_was(first: BackedUp) -> None:
    """Off is offline; without an agent, paused, or off with its memory saved it is crash, with the reason in words."""
    assert consistency(first.outcomes["states-off"]) == ("offline", "the domain was shut off")
    reasons = {
        "states-running": "no guest agent",
        "states-transient": "no guest agent",
        "states-paused": "paused",
        "states-saved": "memory saved",
    }
    for name, reason in reasons.items():
        word, said = consistency(first.outcomes[name])
        assert word == "crash"
        assert reason in said


def test_a_saved_memory_stays(host: Sources, first: BackedUp) -> None:
    """The memory image of a VM that was saved is still there: its next start resumes it."""
    assert first.outcomes["states-saved"]["state"] == "complete"
    assert "states-saved" in virsh(host.uri, "list", "--all", "--with-managed-save", "--name").splitlines()


def test_a_transient_vm_stays_transient(host: Sources, first: BackedUp) -> None:
    """A transient VM is not made persistent; its archive comes back as a VM with its content."""
    assert first.guests["states-transient"].uuid in virsh(host.uri, "list", "--transient", "--uuid").split()
    restored, copy = host.restore_as("states-transient", "states-transient-copy")
    assert restored["archive"] == first.outcomes["states-transient"]["result"]["archive"]
    assert_holds(restored["disks"]["vda"], "qcow2", [4])
    assert copy.state() == "shut off"


def test_an_unchanged_disk_is_not_read_again(host: Sources, first: BackedUp) -> None:
    """Of a shut-off VM only the disk that changed since the last backup is read; a VM that may not be is not touched.

    The second VM has no agent and its policy asks for one: it fails before anything is done to it.
    """
    assert all(count >= MIB for count in read(first.outcomes["states-off"]).values())
    fill_image(host.folder / "off.raw", "raw", 5)
    host.site.configure(overrides={"states-running": {"quiesce": "require"}})
    before = virsh(host.uri, "dumpxml", "states-running")

    second = host.backup("states-off", "states-running", code=1)

    assert read(second["states-off"])["vda"] == 0
    assert read(second["states-off"])["vdb"] >= MIB
    assert second["states-running"]["error"]["type"] == "FreezeFailed"
    assert "quiesce" in second["states-running"]["error"]["remedy"]
    assert virsh(host.uri, "dumpxml", "states-running") == before
    assert len(host.archives("states-running")) == 1
    assert not host.site.journal.entries().entries


def test_a_vm_started_while_it_is_read_is_taken_live(host: Sources) -> None:
    """A VM that is started while borg reads its images gets one archive, taken live; the first one is discarded."""
    image = host.image("early.raw", "raw", size=READ_FOR_A_WHILE)
    image.write_bytes(os.urandom(READ_FOR_A_WHILE))
    content = digest(image)
    guest = host.define("states-early", disk("vda", image, "raw"))
    with ThreadPoolExecutor(1) as pool:
        backup = pool.submit(host.backup, "states-early")
        hold_borg(host.site.repository_path, image)  # it is never let go: the run must end it
        guest.start()
        outcome = backup.result()["states-early"]

    assert consistency(outcome)[0] == "crash"
    assert [each["archive"] for each in host.archives("states-early")] == [outcome["result"]["archive"]]
    assert guest.state() == "running"
    host.assert_on_bases(guest, {"vda": str(image)})
    restored, _ = host.restore_as("states-early", "states-early-copy")
    assert digest(Path(restored["disks"]["vda"])) == content
