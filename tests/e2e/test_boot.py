"""VMs that are booted out of archives at once: kept in files of their own, or thrown away, whatever dies meanwhile."""

import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.errors import DomainBusy, NoSpace, UsageError, VmborgError
from infra.errors_views import NotBooted, ViewDead
from infra.hypervisor.domain_xml import parse_domain
from infra.journal.views import ViewJournal
from tasks.boot import Choice, Wanted, boot, discard, keep_booted
from tasks.boot.known import boot_findings
from tasks.health import Health
from tasks.job import backup_job, covered_names
from tasks.recover_all import recover_all
from tasks.retention.run import look_around, prune_repository
from tasks.status import read_status
from tests.e2e.booting import BootHost, assert_nothing_left, booting_host, open_files, quiet
from tests.guests import Boot, DiskSpec, Guest, domain_xml, make_disk, virsh
from tests.guests.waiting import wait_for
from tests.integration.vmborg import VMBORG

__all__ = ["booting_host"]
pytestmark = pytest.mark.e2e

MIB = 1024**2
STEPS = ("journalled", "shown", "placed", "defined", "started")


def no_progress(_done: int, _total: int) -> None:
    """Nobody watches."""


def assert_on_own_files(host: BootHost, name: str, folder: Path) -> None:
    """Live and at the next start, qemu's open files included; and nothing of the archive is mounted."""
    domain = host.domain(name)
    for definition in (domain.live(), domain.inactive()):
        assert definition is not None
        for disk in definition.disks:
            assert disk.image.path.startswith(f"{folder}/")
            assert disk.backing == ()
    for path in open_files(domain.uuid):
        assert "/run/vmborg" not in path
        assert str(host.scratch) not in path
    wait_for(lambda: not host.servers(), timeout=30, what="the end of what showed the archive")
    assert ViewJournal(host.config.state.views).entries() == ((), ())
    assert list(host.scratch.iterdir()) == []


def test_a_guest_boots_writes_is_kept_and_reboots(host: BootHost, boot: Boot) -> None:
    """What was archived and what it wrote afterwards is there after its reboot from files of its own."""
    image = make_disk(host.host.images / "guest.qcow2", size=96 * MIB, data=16 * MIB)
    mac = "52:54:00:d1:12:01"
    devices = f"<interface type='user'><mac address='{mac}'/></interface>"
    xml = domain_xml(host.name("guest"), boot=boot, disks=[DiskSpec("vda", image)], extra_devices=devices)
    original = host.host.hypervisor.define(xml)
    host.host.factory.make(original)
    made = host.ok("boot", original.name)
    live = virsh(host.uri, "dumpxml", made["uuid"])
    guest = Guest(host.uri, live)
    guest.wait_agent(120)
    assert (made["uuid"] != original.uuid, mac in live, "<interface type='user'>" in live) == (True, False, True)
    assert guest.exec(["sh", "-c", "echo written after the boot > /data/vda/after && sync"])[0] == 0
    assert host.name("guest-boot") not in covered_names(host.config, host.host.hypervisor)

    folder = host.host.root / "kept"
    kept = host.ok("boot", "--keep", folder, made["name"])
    assert kept["kept"]["disks"] == {"vda": f"{folder}/{made['name']}-vda.qcow2"}
    assert_on_own_files(host, made["name"], folder)
    assert parse_domain(virsh(host.uri, "dumpxml", made["uuid"], "--inactive")).kernel.startswith(f"{folder}/")
    assert made["name"] in covered_names(host.config, host.host.hypervisor)

    guest.shutdown(timeout=60)
    guest.start().wait_agent(120)
    code, output = guest.exec(["sh", "-c", "cat /data/vda/after && cmp /data/vda/data-0000 /data/vda/data-0000"])
    assert (code, output.strip()) == (0, "written after the boot")
    with pytest.raises(NotBooted):
        discard(host.config, made["name"])
    assert guest.state() == "running"
    guest.destroy()
    guest.undefine()


def test_each_image_of_a_chain_is_the_archive_s(host: BootHost) -> None:
    """A linked clone whose template is gone runs from the archived one; discarded, nothing is left."""
    done = host.ok("boot", host.name("clone"))
    host.io(done["name"], "read -P 5 0 1M", "read -P 6 1M 1M", "write -P 7 2M 1M", "read -P 7 2M 1M")
    finding = next(each for each in boot_findings(host.config) if each.subject == done["name"])
    assert finding.health is Health.OK
    assert done["archive"] in finding.text
    assert done["name"] in prune_repository(host.config, "main", look_around(host.config, datetime.now(UTC))).withheld
    status = read_status(host.config)
    assert finding in status.problems
    assert done["name"] not in {vm.vm for vm in status.vms}
    with pytest.raises(UsageError), backup_job(done["name"], str(host.host.config_path)):
        pass
    call = host.vmborg("boot", host.name("clone"))
    assert call.code == 1
    assert "booted already" in call.voices()[0]
    ended = host.ok("boot", "--discard", done["name"])
    assert ended["uuid"] == done["uuid"]
    assert_nothing_left(host)


def test_discard_touches_no_other_vm(host: BootHost) -> None:
    """The archived VM itself, and a name that nobody has, are refused by name; both in one call is no call."""
    domain = host.domain(host.name("parts"))
    before = domain.inactive_xml()
    for name in (domain.uuid, "nobody"):
        with pytest.raises(NotBooted, match=name):
            discard(host.config, name)
    call = host.vmborg("boot", "--discard", domain.name)
    assert call.code == 1
    assert domain.name in call.voices()[0]
    assert host.vmborg("boot", domain.name, "--discard", domain.name).code == 2
    assert domain.inactive_xml() == before


def test_a_copy_goes_on_whatever_cut_it_off(host: BootHost) -> None:
    """Killed at each step, by Ctrl-C while the guest was reset, by the guest's end: nothing written is lost."""
    folder = host.host.root / "kept parts"
    name = boot(host.config, Wanted(host.name("parts")), say=quiet).name
    host.io(name, "write -P 11 1M 1M", "flush")
    host.dies(name, "chosen", host.host.root / "nothing is there yet")
    host.dies(name, "moved", folder)
    host.io(name, "write -P 12 2M 1M", "flush")
    with pytest.raises(UsageError, match="into another folder"):
        keep_booted(host.config, name, host.host.root / "other", progress=no_progress)

    virsh(host.uri, "blockpull", name, "vda", "--bandwidth", "1")  # slow; it is taken over
    code, said = interrupted_copy(host, name, folder)
    assert code == 128 + signal.SIGINT
    assert f"boot --keep '{folder}' {name}" in said
    domain = host.domain(name)
    assert domain.block_job("vda") is None
    live = parse_domain(domain.live_xml())
    assert [disk.backing[-1].path for disk in live.disks] == [f"{host.view(name).place}/disks/vda"]

    domain.destroy()
    with pytest.raises(VmborgError, match="is shut off"):
        keep_booted(host.config, name, folder, progress=no_progress)
    domain.start()
    host.dies(name, "copied", folder)
    host.dies(name, "settled", folder)
    assert [each.error for each in recover_all(host.config)] == [""]
    assert_on_own_files(host, name, folder)
    host.io(name, *(f"read -P {byte} {number}M 1M" for number, byte in enumerate((9, 11, 12, 13))))
    domain.destroy()
    domain.undefine()
    assert_nothing_left(host)


def interrupted_copy(host: BootHost, name: str, folder: Path) -> tuple[int, str]:
    """Begin the copy, reset the guest and let it write, then Ctrl-C; exit code and what was said."""
    argv = [str(VMBORG), "--config", str(host.host.config_path), "boot", "--keep", str(folder), name]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as call:
        journal, number = ViewJournal(host.config.state.views), host.view(name).number
        wait_for(lambda: is_held(journal, number), timeout=30, what="the copy")
        virsh(host.uri, "reset", name)
        host.io(name, "write -P 13 3M 1M", "flush")
        call.send_signal(signal.SIGINT)
        said = call.communicate(timeout=60)[1]
    return call.returncode, said


def is_held(journal: ViewJournal, number: str) -> bool:
    """Whether a command works on this view."""
    try:
        with journal.hold(number):
            return False
    except DomainBusy:
        return True


def test_one_that_is_kept_from_the_beginning_needs_no_scratch(host: BootHost) -> None:
    """Its images are in the folder at once, cache settings of its definition come back, and a full disk is told."""
    folder = host.host.root / "at once"
    host.configure(min_free="900TiB", min_free_start="901TiB")
    with pytest.raises(NoSpace, match="not enough room"):
        boot(host.config, Wanted(host.name("clone"), choice=Choice(keep=str(folder))), say=quiet)
    host.configure()
    assert_nothing_left(host)
    done = host.ok("boot", host.name("clone"), "--as", host.name("now-boot"), "--keep", folder)
    assert done["booted"]["disks"] == done["kept"]["disks"]
    assert_on_own_files(host, host.name("now-boot"), folder)
    assert virsh(host.uri, "dumpxml", host.name("now-boot"), "--inactive").count("cache='none'") == 2
    host.io(host.name("now-boot"), "read -P 5 0 1M", "read -P 6 1M 1M")
    domain = host.domain(host.name("now-boot"))
    domain.destroy()
    domain.undefine()
    assert {path.name for path in folder.iterdir()} == {f"{host.name('now-boot')}-vd{letter}.qcow2" for letter in "ab"}


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_boot_is_taken_away(host: BootHost, step: str) -> None:
    """Wherever it is killed before it told of the VM, recover leaves nothing of it."""
    before = host.domain(host.name("parts")).inactive_xml()
    host.dies(host.name("parts"), step)
    assert host.left()
    assert [each.health for each in boot_findings(host.config)] == [Health.WARNING]
    assert [each.error for each in recover_all(host.config)] == [""]
    assert_nothing_left(host)
    assert host.domain(host.name("parts")).inactive_xml() == before


def test_a_mount_that_died_is_told_and_mounted_again(host: BootHost) -> None:
    """borg's, then our own: critical while the guest runs; off, it is shown again, with what the guest wrote."""
    name = host.name("parts-boot")
    boot(host.config, Wanted(host.name("parts")), say=quiet)
    host.io(name, "write -P 21 1M 1M", "flush")
    for mount in ("archive", "disks"):
        host.kill_server(f"{host.view(name).place}/{mount}")
        assert [each.health for each in boot_findings(host.config)] == [Health.CRITICAL]
        (told,) = recover_all(host.config)
        assert "its guest reads errors" in told.error
        assert f"boot --discard {name}" in told.error
        with pytest.raises(VmborgError, match="not shown any more"):
            keep_booted(host.config, name, host.host.root / "nowhere", progress=no_progress)
        host.domain(name).destroy()
        assert [each.health for each in boot_findings(host.config)] == [Health.WARNING]
        (done,) = recover_all(host.config)
        assert "is mounted again" in done.actions[-1]
        host.domain(name).start()
        host.io(name, "read -P 9 0 1M", "read -P 21 1M 1M")
    assert recover_all(host.config) == []
    overlay = Path(host.domain(name).inactive().disks[0].image.path)
    host.domain(name).destroy()
    host.domain(name).undefine()
    (lost,) = recover_all(host.config)
    assert "not defined any more" in lost.error
    assert overlay.exists()
    discard(host.config, name)
    assert_nothing_left(host)


def test_a_copy_whose_archive_dies_goes_on_later(host: BootHost) -> None:
    """The mount goes while the disk is copied: typed error, the VM goes on, and what was copied is not lost."""
    name, folder = host.name("parts-boot"), host.host.root / "kept late"
    boot(host.config, Wanted(host.name("parts")), say=quiet)
    host.io(name, "write -P 31 1M 1M", "flush")
    host.dies(name, "moved", folder)
    virsh(host.uri, "blockpull", name, "vda", "--bandwidth", "1")

    place, dead = host.view(name).place, list[str]()

    def die(_done: int, _total: int) -> None:
        if not dead:
            host.kill_server(f"{place}/disks")
            dead.append(place)

    with pytest.raises(ViewDead) as told:
        keep_booted(host.config, name, folder, progress=die)
    assert str(folder) in told.value.evidence
    assert "virsh destroy" in told.value.remedy
    host.domain(name).destroy()
    assert "is mounted again" in recover_all(host.config)[0].actions[-1]
    host.domain(name).start()
    keep_booted(host.config, name, folder, progress=no_progress)
    assert_on_own_files(host, name, folder)
    host.io(name, "read -P 9 0 1M", "read -P 31 1M 1M")
    host.domain(name).destroy()
    host.domain(name).undefine()


def test_firmware_state_comes_along_and_goes(host: BootHost) -> None:
    """NVRAM and TPM state are copies of the archived ones, under its own name and UUID, and go with it."""
    uefi = """<os><type arch='x86_64' machine='q35'>hvm</type>
      <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
      <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/></os><features><acpi/></features>"""
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><controller type='usb'"
    edit = [("<os><type arch='x86_64' machine='q35'>hvm</type></os>", uefi), ("<controller type='usb'", tpm)]
    domain = host.host.define([DiskSpec("vda", host.host.image("uefi.qcow2"))], name="uefi", edit=edit)
    domain.start(paused=True)
    domain.destroy()
    host.host.factory.make(domain)
    done = boot(host.config, Wanted(domain.name), say=quiet)
    nvram = host.domain(done.name).inactive().nvram
    state = Path("/var/lib/libvirt/swtpm", done.uuid)
    assert nvram is not None
    assert Path(nvram.path).name == f"{done.name}_VARS.fd"
    assert any(state.rglob("tpm2-00.permall"))
    discard(host.config, done.name)
    assert not Path(nvram.path).exists()
    assert not state.exists()
    assert domain.inactive().nvram is not None
    assert_nothing_left(host)
