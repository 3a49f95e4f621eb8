"""The test guests themselves: what every other test relies on."""

import sys
from pathlib import Path

import pytest

from infra.errors import CommandFailed
from infra.process import run, spawn
from tests.e2e.sources import bare_xml, disk
from tests.guests import (
    Daemons,
    DiskSpec,
    Guest,
    GuestError,
    image_format,
    make_disk,
    read_counters_from_images,
    remove_leftovers,
    virsh,
    wait_for,
)
from tests.integration.conftest import MIB, GuestFactory, three_disks

pytestmark = pytest.mark.integration


def assert_ordered(counters: dict[str, int]) -> None:
    """One consistent point: a >= b >= c >= 1 and a - c <= 1."""
    values = [counters[target] for target in sorted(counters)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] <= 1
    assert values[-1] >= 1


def test_three_disks_count_in_order_and_go_on(guest_factory: GuestFactory) -> None:
    """Pull the plug: what was counted is on the disks, in order, on whole file systems, and goes on after a start."""
    guest = guest_factory()
    guest.wait_counter_moves()
    disks = guest.disk_paths()
    counted = guest.counters()
    guest.destroy()

    found = read_counters_from_images(disks)

    assert list(found) == ["vda", "vdb", "vdc"]
    assert_ordered(found)
    assert found.damage == {}
    assert all(found[target] >= counted[target] for target in counted)
    guest.start()
    guest.wait_agent()
    guest.wait_ready()
    assert f"counter resumes: vda={found['vda']} vdb={found['vdb']} vdc={found['vdc']}" in guest.console()
    guest.wait_counter_moves()
    assert guest.counters()["vdc"] > found["vda"]


def test_disks_are_written_in_order(guest_factory: GuestFactory) -> None:
    """Read backwards at any moment, no disk is ever ahead of the one that is written before it."""
    guest = guest_factory()
    # Not with the shell's read, which takes one byte at a time: of 69 and 70 it made 60.
    read = "c=$(cat /data/vdc/counter); b=$(cat /data/vdb/counter); a=$(cat /data/vda/counter)"
    check = 'if [ $a -lt $b ] || [ $b -lt $c ]; then echo "$a $b $c"; exit 1; fi'
    before = guest.counters()["vda"]

    seen = guest.exec(["sh", "-c", f"n=0; while [ $n -lt 300 ]; do {read}; {check}; n=$((n + 1)); done"])

    assert seen == (0, "")
    assert guest.counters()["vda"] > before + 5


@pytest.mark.parametrize("mode", ["agent", "acpi"])
def test_shutdown_leaves_clean_file_systems(guest_factory: GuestFactory, mode: str) -> None:
    """A shutdown through the agent or the power button unmounts the disks: their journals are empty."""
    guest = guest_factory()
    disks = guest.disk_paths()

    guest.shutdown(mode=mode)

    for path in disks.values():
        raw = path.with_suffix(".raw")
        run(["qemu-img", "convert", "-O", "raw", str(path), str(raw)], timeout=60)
        assert "needs_recovery" not in run(["dumpe2fs", "-h", str(raw)], timeout=60).stdout


def test_agent_runs_commands_and_freezes(guest_factory: GuestFactory) -> None:
    """Exit code and output of a command come back; frozen disks stand still, thawed ones go on."""
    guest = guest_factory()
    assert guest.exec(["sh", "-c", "echo said; echo failed >&2; exit 7"]) == (7, "said\nfailed\n")
    load = ["dd", "if=/dev/urandom", "of=/data/vda/load", "bs=64k", "count=16", "conv=fsync"]
    assert guest.exec(load)[0] == 0

    assert guest.agent("guest-fsfreeze-freeze") == 3
    frozen = read_counters_from_images(guest.disk_paths())

    with pytest.raises(GuestError):
        guest.wait_counter_moves(timeout=3, console=True)
    assert read_counters_from_images(guest.disk_paths()) == frozen
    assert_ordered(frozen)
    assert guest.agent("guest-fsfreeze-thaw") == 3
    guest.wait_counter_moves()


def test_agent_can_be_made_to_hang(guest_factory: GuestFactory) -> None:
    """agent-pause stops the agent's process for some seconds; then it answers again."""
    guest = guest_factory()

    assert guest.exec(["agent-pause", "6"]) == (0, "")

    wait_for(lambda: not answers(guest), timeout=5, what="silent agent")
    wait_for(lambda: answers(guest), timeout=30, what="agent back")


def answers(guest: Guest) -> bool:
    """Whether the agent answers within a second."""
    try:
        guest.agent("guest-ping", timeout=1)
    except CommandFailed:
        return False
    return True


def test_guest_without_agent_is_judged_by_its_console(guest_factory: GuestFactory) -> None:
    """Without an agent the console tells that the guest runs and counts, and the power button still works."""
    guest = guest_factory(agent=False)

    guest.wait_counter_moves(console=True)

    assert not answers(guest)
    guest.shutdown(mode="acpi")
    assert_ordered(read_counters_from_images(guest.disk_paths()))


def test_uefi_guest_with_tpm_has_nvram_and_tpm_state(guest_factory: GuestFactory) -> None:
    """A UEFI guest sees its firmware and its TPM, has an NVRAM file, and leaves none when it is undefined."""
    guest = guest_factory(uefi=True, tpm=True)
    nvram = Path(guest.xml(inactive=True).findtext("./os/nvram", ""))
    state = Path("/var/lib/libvirt/swtpm", guest.uuid)

    assert guest.exec(["stat", "/sys/firmware/efi", "/dev/tpm0"])[0] == 0
    assert nvram.stat().st_size == 540672
    assert list(state.rglob("tpm2-00.permall"))

    guest.destroy()
    guest.undefine()
    assert not nvram.exists()
    assert not state.exists()


def test_every_kind_of_disk_starts(guest_factory: GuestFactory, images: Path) -> None:
    """Clone, raw, SCSI, blank, read-only, CD-ROM and floppy in one guest: it counts on the writable ext4 ones only."""
    base = make_disk(images / "kinds-base.qcow2", size=64 * MIB)
    raw = make_disk(images / "kinds-raw.img", size=64 * MIB, format="raw", data=MIB)
    scsi = make_disk(images / "kinds-scsi.qcow2", size=64 * MIB)
    locked = make_disk(images / "kinds-ro.img", size=64 * MIB, format="raw", data=MIB)
    blank = make_disk(images / "kinds-blank.qcow2", size=16 * MIB, formatted=False)
    clone = make_disk(images / "kinds-clone.qcow2", size=0, backing=base)
    guest = guest_factory(
        "test kinds ü % @",
        disks=[
            DiskSpec("vda", clone, discard=True),
            DiskSpec("vdc", raw, format="raw"),
            DiskSpec("vdd", blank),
            DiskSpec("vdf", locked, format="raw", readonly=True),
            DiskSpec("sda", scsi, bus="scsi"),
            DiskSpec("sdb", locked, format="raw", device="cdrom"),
            DiskSpec("sdc", None, format="raw", device="cdrom"),
            DiskSpec("fda", None, format="raw", device="floppy"),
        ],
        network=True,
    )

    guest.wait_counter_moves()

    assert set(guest.counters()) == {"vda", "vdc", "sda"}
    assert guest.exec(["cat", "/data/vdf/data-0000"])[0] == 0
    assert image_format(clone) == "qcow2"
    with pytest.raises(GuestError, match="no readable file system"):
        read_counters_from_images({"vdd": blank})


@pytest.mark.parametrize("damage", ["clri /data-0000", "freeb 1000 200", "sif /data-0000 links_count 3"])
def test_damage_is_seen(images: Path, damage: str) -> None:
    """A lost inode, blocks wrongly free or a wrong link count are damage; the intact file system before is clean."""
    path = make_disk(images / "damaged.img", size=64 * MIB, format="raw", data=8 * MIB)
    assert read_counters_from_images({"vda": path}).clean

    run(["debugfs", "-w", "-R", damage, str(path)], timeout=60)

    found = read_counters_from_images({"vda": path})
    assert not found.clean
    assert "e2fsck -fn" in found.damage["vda"]


def test_same_seed_same_files(images: Path) -> None:
    """Two disks of one seed hold the same files, so that a test may compare across machines; another seed differs."""
    sums = [
        run(["debugfs", "-R", "cat data-0000", str(path)], timeout=60).stdout
        for path in (
            make_disk(images / f"seed{number}.img", size=16 * MIB, format="raw", data=MIB, seed=seed)
            for number, seed in enumerate((7, 7, 8))
        )
    ]
    assert sums[0] == sums[1] != sums[2]


def test_disks_hold_the_asked_amount(images: Path) -> None:
    """A default disk takes less than its data plus a little metadata on the host: images stay sparse."""
    (folder := images / "sparse").mkdir()
    for each in three_disks(folder):
        assert each.path is not None
        assert 4 * MIB < each.path.stat().st_blocks * 512 < 10 * MIB


LEAVING = """
import sys
from tests.e2e.sources import bare_xml, disk
from tests.guests import Guest, image_dir, make_disk
with image_dir("left") as folder:
    image = make_disk(folder / "vda.qcow2", size=1048576, formatted=False)
    Guest.define(sys.argv[1], bare_xml("left-by-a-killed-run", disk("vda", image))).start()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_left_does_not_stop_the_next(daemons: Daemons, images: Path) -> None:
    """Its running domain and its images go away, so the name is free; who still runs keeps both."""
    mine = make_disk(images / "mine.qcow2", size=MIB, formatted=False)
    with (
        Guest.define(daemons.uri, bare_xml("not-left", disk("vda", mine))) as kept,
        spawn([sys.executable, "-c", LEAVING, daemons.uri], stdin=True) as other,
    ):
        assert other.popen.stdout is not None
        folder = Path(other.popen.stdout.readline().strip())
        assert remove_leftovers(daemons.uri) == []
        other.kill()
        assert folder.exists()
        assert remove_leftovers(daemons.uri) == ["left-by-a-killed-run", folder.name]
        assert not folder.exists()
        assert "left-by-a-killed-run" not in virsh(daemons.uri, "list", "--all", "--name")
        assert kept.exists()
        assert mine.exists()
