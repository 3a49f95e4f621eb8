"""Backups that read only what changed, while the host changes under them: libvirtd, qemu, images, definitions.

As in test_changed: domains without an operating system, every archive compared with what qemu-img reads of the image.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.hypervisor.qemu_process import life_of
from infra.process import run, spawn
from tests.e2e.sources import MIB, Sources, disk, fill_image, guest_io
from tests.e2e.test_backup_restore import borg_create
from tests.e2e.test_changed import back_up, checkpoints, extract, one_disk
from tests.guests import Guest, virsh, wait_for
from tests.integration.own_libvirtd import OwnLibvirtd
from tests.integration.segments.images import content_of, drop_bitmaps
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def changed(daemon: OwnLibvirtd, prefect_server: str) -> Iterator[Sources]:
    """An installation on that libvirtd, with `read: changed`."""
    with Sources(daemon.uri, prefect_server) as host:
        host.site.configure(read="changed", quiesce="never")
        yield host


@contextmanager
def held(host: Sources, guest: Guest) -> Iterator[None]:
    """A backup whose borg stands still during the block, and that ends well after it."""
    argv = [str(VMBORG), "--config", str(host.site.config), "backup", guest.name]
    with spawn(argv, env={"PREFECT_API_URL": host.api}) as process:
        creating = wait_for(lambda: borg_create(process.pid), timeout=90, what="borg create", interval=0.01)
        creating.suspend()
        yield
        creating.resume()
        assert process.wait(120) == 0, process.stderr.read()


def last_archive(host: Sources, guest: Guest) -> bytes:
    """Its disk as it is in its newest archive."""
    return extract(host, host.archives(guest.name)[-1]["archive"], "disks/vda")


def test_libvirtd_restarted_between_backups_and_in_one(changed: Sources, daemon: OwnLibvirtd) -> None:
    """kill -9 of libvirtd loses no checkpoint and no bit: what is read is what changed."""
    guest, images = one_disk(changed, "restart")
    guest_io(guest, "vda", "write -P 8 40M 64k")
    daemon.kill()
    daemon.start()
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"]) == ("incremental", 4 * MIB)
    guest_io(guest, "vda", "write -P 9 40M 64k")
    with held(changed, guest):
        daemon.kill()
        daemon.start()
        guest_io(guest, "vda", "write -P 7 50M 64k")  # onto the overlay: of the next backup
    before = bytearray(content_of(images["vda"]))
    before[50 * MIB : 50 * MIB + 65536] = bytes(65536)
    assert last_archive(changed, guest) == before
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"]) == ("incremental", 4 * MIB)
    assert len(checkpoints(guest)) == 1


def test_a_qemu_that_was_killed_on_its_overlay(changed: Sources) -> None:
    """kill -9 of qemu while borg reads: what the guest wrote meanwhile is committed, and in the next archive."""
    guest, images = one_disk(changed, "overlay")
    with held(changed, guest):
        guest_io(guest, "vda", "write -P 8 40M 64k", "flush")
        os.kill(int(life_of(guest.uuid).split()[1]), signal.SIGKILL)
        guest.wait_state("shut off")
    before = bytearray(content_of(images["vda"]))
    assert before[40 * MIB : 40 * MIB + 65536] == b"\x08" * 65536
    before[40 * MIB : 40 * MIB + 65536] = bytes(65536)
    assert last_archive(changed, guest) == before
    guest.start()
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"]) == ("incremental", 4 * MIB)
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"]) == ("incremental", 0)


def test_an_image_with_a_snapshot_and_at_another_path(changed: Sources) -> None:
    """With an internal snapshot it is read whole; reverted, and then moved, in full; then what changed."""
    guest, images = one_disk(changed, "meddled")
    guest.destroy()
    run(["qemu-img", "snapshot", "-c", "before", str(images["vda"])], timeout=60)
    guest.start()
    guest_io(guest, "vda", "write -P 8 0 1M")
    archive, told = back_up(changed, guest, {})
    assert (told["vda"]["mode"], "internal snapshots" in told["vda"]["reason"]) == ("whole", True)
    whole = changed.folder / "whole.qcow2"
    whole.write_bytes(extract(changed, archive, str(images["vda"]).lstrip("/")))
    assert content_of(whole) == content_of(images["vda"])
    guest.destroy()
    drop_bitmaps(images["vda"])
    for option in ("-a", "-d"):
        run(["qemu-img", "snapshot", option, "before", str(images["vda"])], timeout=60)
    guest.start()
    guest_io(guest, "vda", "read -P 3 0 1M")
    _, told = back_up(changed, guest, images)
    assert told["vda"]["mode"] == "full"
    guest.destroy()
    there = images["vda"].with_name("moved.qcow2")
    shutil.move(images["vda"], there)
    redefine(guest, str(images["vda"]), str(there))
    guest.start()
    guest_io(guest, "vda", "write -P 9 40M 64k")
    _, told = back_up(changed, guest, {"vda": there})
    assert (told["vda"]["mode"], "another file" in told["vda"]["reason"]) == ("full", True)
    _, told = back_up(changed, guest, {"vda": there})
    assert (told["vda"]["mode"], told["vda"]["read"], len(checkpoints(guest))) == ("incremental", 0, 1)


def redefine(guest: Guest, old: str, new: str) -> None:
    """Replace text in the definition of a shut-off domain."""
    xml = virsh(guest.uri, "dumpxml", guest.uuid, "--inactive", "--security-info")
    assert old in xml
    run(["virsh", "-c", guest.uri, "define", "/dev/stdin"], timeout=60, input_text=xml.replace(old, new))


def test_two_vms_on_one_base(changed: Sources) -> None:
    """Linked clones are read whole, with the reason; each archive has its own clone and the base of both."""
    base = changed.image("base.qcow2", fill=5)
    clones = {number: changed.image(f"on-base-{number}.qcow2", backing=base) for number in (1, 2)}
    guests = {number: changed.define(f"changed-on-base-{number}", disk("vda", clones[number])) for number in clones}
    for number, clone in clones.items():
        fill_image(clone, "qcow2", 6 + number, offset=MIB)
        guests[number].start()
    changed.backup(*(guest.name for guest in guests.values()))
    guest_io(guests[1], "vda", "write -P 9 2M 64k")
    told = changed.backup(*(guest.name for guest in guests.values()))
    for number, guest in guests.items():
        (how,) = told[guest.name]["result"]["disks"]
        assert (how["mode"], "linked clone" in how["reason"]) == ("whole", True)
        restored, _ = changed.restore_as(guest.name, f"{guest.name}-copy")
        assert content_of(Path(restored["disks"]["vda"])) == content_of(clones[number])
    assert content_of(clones[1]) != content_of(clones[2])
