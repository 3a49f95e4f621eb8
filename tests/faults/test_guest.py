"""Faults of the guest while it is backed up: it ends, restarts, stops, or its definition goes."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.checks import assert_on_bases, sources
from tests.e2e.held import let_go
from tests.faults.rig import Rig
from tests.guests import Guest, virsh, wait_for
from tests.integration.vmborg import Call

pytestmark = pytest.mark.e2e


def result_of(call: Call) -> dict[str, Any]:
    """The result of a backup that ended well."""
    assert call.code == 0, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
    outcome = call.document["backups"][0]
    assert outcome["state"] == "complete"
    result: dict[str, Any] = outcome["result"]
    return result


def backed_up_while(rig: Rig, fault: Callable[[], object]) -> dict[str, Any]:
    """A backup that meets this fault while borg reads the bases and the guest has written to its overlays.

    It must end well; returns its result.
    """
    with rig.running() as run:
        borg = rig.hold()
        assert sources(rig.guest) != rig.bases
        rig.guest.wait_counter_moves()
        fault()
        let_go(borg)
        return result_of(run.wait())


def boot(guest: Guest) -> None:
    """Start it and wait until it counts."""
    guest.start()
    guest.wait_agent()
    guest.wait_ready()


def found_at_boot(guest: Guest) -> dict[str, int]:
    """The counters that the guest found on its disks when it was booted last."""
    line = re.findall(r"^counter resumes:(.*)$", guest.console(), re.MULTILINE)[-1]
    return {target: int(value) for target, value in re.findall(r"(\w+)=(\d+)", line)}


def assert_nothing_lost(guest: Guest, before: dict[str, int]) -> None:
    """The guest found what it had written to its overlays when it was booted."""
    found = found_at_boot(guest)
    assert set(found) == set(before)
    assert all(found[target] >= value for target, value in before.items()), (before, found)


@pytest.mark.fault(
    "the guest shuts down while borg reads",
    seen="run Completed; the VM is off",
    does="finishes the archive, commits the overlays offline, corrects the definition",
)
def test_shut_off(rig: Rig) -> None:
    """The archive is complete; the VM is off on its own disks, and what it wrote last is on them."""
    written: dict[str, int] = {}

    def fault() -> None:
        written.update(rig.guest.counters())
        rig.guest.shutdown()

    backed_up_while(rig, fault)
    rig.check("shut off")
    boot(rig.guest)
    assert_nothing_lost(rig.guest, written)


@pytest.mark.fault(
    "the guest reboots while borg reads",
    seen="run Completed",
    does="finishes the archive and moves the guest back while it boots",
)
def test_rebooted(rig: Rig) -> None:
    """The guest boots on, on its own disks, and finds what it wrote last."""
    guest = rig.guest
    written: dict[str, int] = {}
    boots = guest.console().count("guest ready")

    def fault() -> None:
        written.update(guest.counters())
        virsh(guest.uri, "reboot", guest.uuid, "--mode", "agent")
        guest.wait_console("guest stops: reboot")

    backed_up_while(rig, fault)
    wait_for(lambda: guest.console().count("guest ready") > boots, timeout=90, what="the second boot")
    guest.wait_agent()
    rig.check()
    assert_nothing_lost(guest, written)


@pytest.mark.fault(
    "the VM is destroyed while borg reads",
    seen="run Completed; the VM is off",
    does="finishes the archive, commits the overlays offline, corrects the definition",
)
def test_destroyed(rig: Rig) -> None:
    """What the guest had synced before its plug was pulled is on its own disks."""
    written: dict[str, int] = {}

    def fault() -> None:
        written.update(rig.guest.counters())
        rig.guest.destroy()

    backed_up_while(rig, fault)
    rig.check("shut off")
    boot(rig.guest)
    assert_nothing_lost(rig.guest, written)


@pytest.mark.fault(
    "somebody pauses the VM while borg reads",
    seen="run Completed; the VM is paused",
    does="finishes the archive, moves the VM back and leaves it paused",
)
def test_paused(rig: Rig) -> None:
    """Whoever paused it is the one to resume it."""
    try:
        backed_up_while(rig, lambda: virsh(rig.guest.uri, "suspend", rig.guest.uuid))
        rig.check("paused")
    finally:
        virsh(rig.guest.uri, "resume", rig.guest.uuid)
    rig.check()


def defined_again(rig: Rig, archive: str) -> None:
    """Define the VM from its archive."""
    xml = rig.site.repository.extract_stdout(archive, "vmborg/domain.xml")
    definition = rig.folder / "definition.xml"
    definition.write_text(xml, encoding="utf-8")
    virsh(rig.guest.uri, "define", str(definition))
    definition.unlink()


@pytest.mark.fault(
    "the running VM is undefined while borg reads",
    seen="run Completed; the VM runs and is transient",
    does="finishes the archive, moves the VM back, defines nothing; the definition is in the archive",
)
def test_undefined(rig: Rig) -> None:
    """It is put back as the transient VM that it is now."""
    guest = rig.guest
    try:
        backed_up_while(rig, lambda: virsh(guest.uri, "undefine", guest.uuid, "--checkpoints-metadata"))
        assert guest.uuid in virsh(guest.uri, "list", "--transient", "--uuid").split()
        rig.check()
    finally:
        defined_again(rig, rig.archives()[-1])
    rig.check()


@pytest.mark.fault(
    "the VM is destroyed and undefined while borg reads",
    seen="run Completed; libvirt does not know the VM any more",
    does="finishes the archive, commits the overlays offline, defines nothing; the definition is in the archive",
)
def test_destroyed_and_undefined(rig: Rig) -> None:
    """The journal is enough to put its disks back."""
    guest = rig.guest
    written: dict[str, int] = {}

    def fault() -> None:
        written.update(guest.counters())
        guest.destroy()
        virsh(guest.uri, "undefine", guest.uuid, "--checkpoints-metadata")

    try:
        backed_up_while(rig, fault)
        assert not guest.exists()
        assert not [path for path in rig.folder.iterdir() if "vmborg-" in path.name]
        assert not rig.site.journal.entries().entries
    finally:
        defined_again(rig, rig.archives()[-1])
    boot(guest)
    rig.check()
    assert_nothing_lost(guest, written)


@pytest.mark.fault(
    "the VM shuts down while borg reads, and is renamed",
    seen="run Completed, under the old name; the VM is off",
    does="finishes the archive, finds the VM by its UUID, commits the overlays offline, corrects the definition",
)
def test_renamed(rig: Rig) -> None:
    """It is on its own disks under its new name, and its checkpoint has gone with it."""
    guest = rig.guest
    written: dict[str, int] = {}

    def fault() -> None:
        written.update(guest.counters())
        guest.shutdown()
        virsh(guest.uri, "domrename", guest.uuid, f"{guest.name}-new")

    try:
        backed_up_while(rig, fault)
        assert virsh(guest.uri, "domname", guest.uuid) == f"{guest.name}-new"
        assert_on_bases(rig.site, guest, rig.bases, [rig.folder])
        assert "vmborg-" in virsh(guest.uri, "checkpoint-list", guest.uuid, "--name")
    finally:
        virsh(guest.uri, "domrename", guest.uuid, guest.name)
    boot(guest)
    rig.check()
    assert_nothing_lost(guest, written)


@pytest.mark.fault(
    "the VM is started while borg reads its shut-off images",
    seen="run Completed; the archive is of the running VM",
    does="ends that copy and deletes what it stored, then backs the VM up live",
)
def test_started(rig: Rig) -> None:
    """One archive comes of it, and it was taken live."""
    guest = rig.guest
    guest.shutdown()
    with rig.running() as run:
        rig.hold()  # never let go: the run must end it
        guest.start()
        result = result_of(run.wait())
    assert result["consistency"] in {"agent", "crash"}
    assert rig.archives() == [*rig.earlier, result["archive"]]
    assert not rig.unfinished()
    guest.wait_agent()
    guest.wait_ready()
    rig.check()
