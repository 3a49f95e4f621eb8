"""Which VMs are tried, in which order, and what a host cannot try."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.config.drills import DrillsConfig
from tasks.catalogue import VmArchive
from tasks.drills.model import Candidate
from tasks.drills.plan import candidates, fits_time, in_order, is_due, is_overdue, too_large
from tasks.drills.proofs import NONE, Proof
from tasks.drills.signs import asks_for_passphrase, lines_of, sign_of_death
from tasks.suits import memory_of, no_room, unsupported

NOW = datetime(2026, 1, 31, tzinfo=UTC)
DAY = timedelta(days=1)
MONTH = 30 * DAY
GIB = 1024**3


def archive(vm: str, day: int, *, host: str = "kvm1", finished: bool = True) -> VmArchive:
    """An archive of the first days of the year."""
    when = datetime(2026, 1, day, tzinfo=UTC)
    return VmArchive("main", f"{vm}@{day}", vm, f"uuid-{vm}", when, finished, disks={"vda": GIB}, hypervisor=host)


def test_each_vm_of_this_host_is_tried_by_its_newest_finished_archive() -> None:
    """An unfinished archive is passed over; a VM that moved away belongs to the host that archived it last."""
    found = candidates(
        [archive("a", 1), archive("a", 2), archive("a", 3, finished=False), archive("b", 1), archive("b", 2, host="x")],
        "kvm1",
    )
    assert found == [Candidate("a", "uuid-a", "a@2", "main", GIB)]


def test_the_oldest_comes_first_and_one_that_was_never_tried_before_all() -> None:
    """A failed drill counts as a turn: it must not take every night's time."""
    found = candidates([archive(vm, 1) for vm in "abcd"], "kvm1")
    proofs = {
        "uuid-a": Proof(proven=NOW - DAY, tried=NOW - DAY),
        "uuid-b": Proof(proven=NOW - 9 * DAY, tried=NOW - 2 * DAY),
        "uuid-c": Proof(proven=NOW - 3 * DAY, tried=NOW - 3 * DAY),
    }
    assert [each.vm for each in in_order(found, proofs)] == ["d", "c", "b", "a"]


def test_due_overdue_and_budgets() -> None:
    """Due after half of the objective; overdue after all of it, counted from the first archive if never proven."""
    young, old = Proof(tried=NOW - 14 * DAY), Proof(tried=NOW - 15 * DAY)
    assert [is_due(each, now=NOW, every=MONTH) for each in (NONE, young, old)] == [True, False, True]
    assert not is_overdue(NONE, first=NOW - 30 * DAY, now=NOW, every=MONTH)
    assert is_overdue(NONE, first=NOW - 31 * DAY, now=NOW, every=MONTH)
    assert not is_overdue(NONE, first=None, now=NOW, every=MONTH)
    assert not is_overdue(Proof(proven=NOW - DAY), first=NOW - 99 * DAY, now=NOW, every=MONTH)
    slow = Proof(seconds=100)
    assert fits_time(slow, spent=0, budget=50)  # alone it gets its turn
    assert not fits_time(slow, spent=10, budget=50)
    assert not fits_time(NONE, spent=50, budget=50)


def test_what_is_too_large_is_told_with_figures() -> None:
    """What a drill measured counts more than what the guest sees of its disks."""
    candidate, drills = Candidate("a", "u", "a@1", "main", 8 * GIB), DrillsConfig(space=2 * GIB, memory=GIB)  # type: ignore[arg-type]
    assert "8.0 GiB" in too_large(candidate, NONE, drills)
    assert not too_large(candidate, Proof(size=GIB), drills)
    assert "2.0 GiB of memory" in too_large(candidate, Proof(size=GIB, memory=2 * GIB), drills)


CAPABILITIES = """<capabilities><guest><os_type>hvm</os_type><arch name='x86_64'><domain type='qemu'/>
  <machine canonical='pc-q35-7.2'>q35</machine><machine>pc-i440fx-7.2</machine></arch></guest></capabilities>"""


@pytest.mark.parametrize(
    ("kind", "arch", "machine", "said"),
    [
        ("qemu", "x86_64", "q35", ""),
        ("qemu", "x86_64", "pc-q35-7.2", ""),
        ("qemu", "x86_64", "pc-q35-9.9", "machine pc-q35-9.9"),
        ("kvm", "x86_64", "q35", "needs kvm"),
        ("qemu", "s390x", "s390-ccw", "architecture s390x"),
    ],
)
def test_what_this_host_does_not_offer_is_named(kind: str, arch: str, machine: str, said: str) -> None:
    """Architecture, acceleration and machine type are compared with libvirt's capabilities."""
    xml = f"<domain type='{kind}'><os><type arch='{arch}' machine='{machine}'>hvm</type></os><devices/></domain>"
    found = unsupported(xml, CAPABILITIES)
    assert said in found
    assert bool(found) == bool(said)


def test_memory_is_read_in_its_unit() -> None:
    """libvirt's unit is KiB if none is written."""
    for written, expected in (("<memory>1024</memory>", 1), ("<memory unit='GiB'>2</memory>", 2048)):
        assert memory_of(f"<domain>{written}<devices/></domain>") == expected * 1024**2
    assert no_room(GIB, GIB)
    assert not no_room(GIB, 2 * GIB)


@pytest.mark.parametrize(
    "console",
    [
        "BdsDxe: No bootable option or device was found.",
        "[    1.1] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "Booting...\r\ngrub rescue> ",
        "You are in emergency mode. After logging in",
    ],
)
def test_a_guest_that_will_not_boot_says_so(console: str) -> None:
    """The line is the evidence."""
    assert sign_of_death(console)


def test_a_guest_that_boots_is_told_from_its_firmware() -> None:
    """Lines of the firmware and control characters are no sign of life; a passphrase is asked for by a guest."""
    assert lines_of("\x1b[2J\x1b[01;01HBdsDxe: loading Boot0001\r\nSeaBIOS (version 1)\r\n\r\n") == []
    assert lines_of("\x1b[0mDebian 12 web ttyS0\r\n\r\nweb login: ") == ["Debian 12 web ttyS0", "web login:"]
    assert not sign_of_death("web login: ")
    assert asks_for_passphrase("Please unlock disk sda5_crypt: ")
