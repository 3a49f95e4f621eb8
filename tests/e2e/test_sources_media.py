"""Every disk gets a verdict: what cannot be covered makes the run partial, and nothing is passed over in silence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.manifest import segment_sizes
from infra.process import spawn
from tests.e2e.checks import sources
from tests.e2e.dashboard import Dashboard
from tests.e2e.observing import Sightings, repeating
from tests.e2e.sources import MIB, SIZE, Sources, assert_holds, disk, drive
from tests.guests import Guest, wait_for
from tests.integration.bare import loop_device

pytestmark = pytest.mark.e2e

MEDIA, TORN, LUN = "media-drives", "media-torn", "media-lun"


@contextmanager
def nbd_server(image: Path, socket: Path) -> Iterator[None]:
    """Serve a raw image to whoever connects to the socket."""
    with spawn(["qemu-nbd", "--persistent", "--shared=4", "-f", "raw", "-k", str(socket), str(image)]) as server:
        wait_for(lambda: server.poll() is not None or socket.exists(), timeout=30, what="qemu-nbd")
        assert server.poll() is None, server.stderr.read()
        socket.chmod(0o777)  # qemu has a user of its own
        yield


def guest_with_drives(host: Sources) -> Guest:
    """A disk, a CD-ROM, an empty drive, a floppy, and a disk that it may only read."""
    medium, floppy = host.folder / "medium.iso", host.image("floppy.raw", "raw", fill=8, size=2 * MIB)
    medium.write_bytes(b"\1CD001" * 4096)
    disks = [
        disk("vda", host.image("drives.qcow2", fill=1)),
        drive("sda", f"<source file='{medium}'/>", device="cdrom", more="<readonly/>"),
        drive("sdb", device="cdrom", more="<readonly/>"),
        drive("fda", f"<source file='{floppy}'/>", device="floppy"),
        disk("vdb", host.image("library.raw", "raw", fill=9), "raw", more="<readonly/>"),
    ]
    return host.define(MEDIA, *disks).start()


def torn_guest(host: Sources) -> Guest:
    """A disk, one that is shared with other guests, and one that is on another host."""
    socket = host.folder / "nbd.sock"
    host.enter(nbd_server(host.image("remote.raw", "raw"), socket))
    remote = f"<source protocol='nbd'><host transport='unix' socket='{socket}'/></source>"
    disks = [
        disk("vda", host.image("torn.qcow2", fill=2)),
        disk("vdb", host.image("shared.raw", "raw"), "raw", more="<shareable/>"),
        drive("vdc", remote, kind="network"),
    ]
    return host.define(TORN, *disks).start()


def lun_guest(host: Sources) -> Guest:
    """A disk and a LUN: shut off, since a loop device takes no SCSI commands."""
    device = host.enter(loop_device(host.folder / "lun.img", 8 * MIB))
    lun = drive("sda", f"<source dev='{device}'/>", kind="block", device="lun")
    return host.define(LUN, disk("vda", host.image("lun.qcow2", fill=3)), lun)


@dataclass
class BackedUp:
    """The three VMs, how one command backed them up, and which images the torn one was seen on meanwhile."""

    bases: dict[str, dict[str, str]]
    guests: list[Guest]
    outcomes: dict[str, dict[str, Any]]
    seen: dict[str, set[str]]


@pytest.fixture(scope="module")
def first(host: Sources) -> BackedUp:
    """All three, backed up by one command: it says partial."""
    guests = [guest_with_drives(host), torn_guest(host), lun_guest(host)]
    bases = {guest.name: sources(guest) for guest in guests}
    sightings = Sightings(guests[1])
    with repeating(sightings.look):
        outcomes = host.backup(MEDIA, TORN, LUN, code=3)
    return BackedUp(bases, guests, outcomes, sightings.seen)


def uncovered(outcome: dict[str, Any]) -> dict[str, str]:
    """Why a disk is not covered, by its target."""
    return dict(each.split(": ", 1) for each in outcome["result"]["uncovered"])


def verdicts(host: Sources, archive: str) -> dict[str, str]:
    """What the archive's manifest says of each disk."""
    return {each["target"]: each["verdict"] for each in host.manifest(archive)["disks"]}


def test_drives_and_read_only_disks_are_no_loss(host: Sources, first: BackedUp) -> None:
    """CD-ROM with and without medium, floppy and read-only disk: each has its verdict, none is stored."""
    assert first.outcomes[MEDIA]["state"] == "complete"
    archive = first.outcomes[MEDIA]["result"]["archive"]
    assert verdicts(host, archive) == {
        "vda": "covered",
        "sda": "cdrom",
        "sdb": "empty",
        "fda": "floppy",
        "vdb": "read-only",
    }
    items = [item for item in host.site.repository.items(archive) if not item.path.startswith("vmborg")]
    stored = {item.path: item.size for item in items if item.type == "-"}
    assert stored == {f"disks/vda/{name}": size for name, size in segment_sizes(SIZE, 4 * MIB).items()}
    assert {item.path for item in items} - stored.keys() == {"disks", "disks/vda"}


def test_a_copy_starts_beside_its_original(host: Sources, first: BackedUp) -> None:
    """A copy starts while its original runs: they share what both can only read, not the floppy that they can write."""
    restored, copy = host.restore_as(MEDIA, "media-copy", "--start")
    original = first.bases[MEDIA]
    assert sources(copy) == {**{each: original[each] for each in ("sda", "vdb")}, **restored["disks"]}
    assert any(f"fda: ejected, its medium {original['fda']}" in warning for warning in restored["warnings"])
    copy.destroy()
    assert_holds(restored["disks"]["vda"], "qcow2", [1])


def test_what_cannot_be_covered_makes_the_run_partial(host: Sources, first: BackedUp) -> None:
    """A shared, a network and a LUN disk are named with the reason, and the run is not called a success."""
    assert first.outcomes[TORN]["state"] == first.outcomes[LUN]["state"] == "partial"
    assert "shared" in uncovered(first.outcomes[TORN])["vdb"]
    assert "network" in uncovered(first.outcomes[TORN])["vdc"]
    assert "SCSI" in uncovered(first.outcomes[LUN])["sda"]
    for vm in (TORN, LUN):
        run = Dashboard(host.api).last_run(vm)
        assert (run["state_type"], run["state_name"]) == ("FAILED", "Partial")
        assert all(target in run["state"]["message"] for target in uncovered(first.outcomes[vm]))


def test_the_list_shows_what_is_missing(host: Sources, first: BackedUp) -> None:
    """`vmborg list` tells of a partial archive which disks are not in it, to people and to programs."""
    (archive,) = host.archives(TORN)
    assert archive["archive"] == first.outcomes[TORN]["result"]["archive"]
    assert (archive["partial"], archive["uncovered"]) == (True, ["vdb", "vdc"])
    assert list(archive["disks"]) == ["vda"]
    assert "vda (not vdb vdc)" in host.site.vmborg("list", "--", TORN).stdout


def test_the_snapshot_leaves_other_disks_alone(host: Sources, first: BackedUp) -> None:
    """While the covered disk was on an overlay, the shared and the network disk stayed on what they were on."""
    assert any("vmborg-" in source for source in first.seen["vda"])
    assert [len(first.seen[target]) for target in ("vdb", "vdc")] == [1, 1]
    for guest in first.guests:
        host.assert_on_bases(guest, first.bases[guest.name])


def test_a_partial_archive_restores_what_it_has(host: Sources, first: BackedUp) -> None:
    """The copy of a partial archive has the covered disk, and a warning for each disk that it does without."""
    restored, copy = host.restore_as(TORN, "media-torn-copy")
    assert_holds(restored["disks"]["vda"], "qcow2", [2])
    assert list(sources(copy)) == ["vda"]
    for target in uncovered(first.outcomes[TORN]):
        assert any(warning.startswith(f"{target}:") for warning in restored["warnings"])


def test_excluding_makes_it_complete(host: Sources, first: BackedUp) -> None:
    """With the disks excluded by the configuration the same VMs are complete, and `list` says so."""
    exclude = {TORN: {"exclude_disks": ["vdb", "vdc"]}, LUN: {"exclude_disks": ["sda"]}}
    host.site.configure(overrides=exclude)
    outcomes = host.backup(TORN, LUN)
    for vm, outcome in outcomes.items():
        assert outcome["state"] == "complete"
        assert outcome["result"]["archive"] != first.outcomes[vm]["result"]["archive"]
        assert [each["partial"] for each in host.archives(vm)] == [True, False]
        assert {"excluded"} == {
            verdicts(host, outcome["result"]["archive"])[each] for each in exclude[vm]["exclude_disks"]
        }
