"""Restores over the VM itself: what makes way comes back when anything fails, and what others use stays."""

import os
from collections.abc import Iterator
from xml.etree.ElementTree import canonicalize

import pytest

from infra.errors import (
    DiskMissing,
    DomainBusy,
    HypervisorError,
    RestoreError,
    TargetExists,
    UnsafeArchive,
)
from infra.hypervisor import images
from infra.hypervisor.domain_xml import disk_sources
from infra.hypervisor.qemu_process import life_of
from infra.model import DomainState
from tasks.restore import Mode, Request, Wish, restore
from tests.guests import Daemons, DiskSpec, image_dir
from tests.integration.bare import digest, image_holds, loop_device
from tests.integration.restoring import MIB, RestoreHost, restore_host, write

pytestmark = pytest.mark.integration


@pytest.fixture
def host(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with an empty repository."""
    assert daemons is not None
    with image_dir("restore") as root, restore_host(root) as place:
        yield place


def test_in_place_replaces_the_image_and_keeps_the_identity(host: RestoreHost) -> None:
    """In place the same domain has the archived content at the same path, and the former image is gone."""
    domain = host.simple(fill=1)
    host.factory.make(domain)
    before = domain.inactive_xml()
    write(host.images / "vm.qcow2", "qcow2", 2)
    result = host.restore(domain.name, Mode.IN_PLACE)
    assert (result.name, result.uuid) == (domain.name, domain.uuid)
    assert canonicalize(domain.inactive_xml()) == canonicalize(before)
    assert image_holds(host.images / "vm.qcow2", "qcow2", 1)
    assert [path.name for path in host.images.iterdir()] == ["vm.qcow2"]


def test_in_place_keeps_the_former_image_if_asked(host: RestoreHost) -> None:
    """With keep_old the former image is there under a telling name, with what it held."""
    domain = host.simple(fill=1)
    host.factory.make(domain)
    write(host.images / "vm.qcow2", "qcow2", 2)
    (kept,) = host.restore(domain.name, Mode.IN_PLACE, keep_old=True).kept
    assert kept.startswith(f"{host.images}/vm.qcow2.vmborg-old-")
    assert image_holds(kept, "qcow2", 2)


def test_in_place_brings_back_what_is_gone(host: RestoreHost) -> None:
    """A VM that was undefined and whose image was deleted comes back under its name, UUID, path and autostart."""
    domain = host.simple(fill=3)
    domain.set_autostart(on=True)
    uuid, name = domain.uuid, domain.name
    host.factory.make(domain)
    domain.undefine()
    (host.images / "vm.qcow2").unlink()
    host.restore(name, Mode.IN_PLACE)
    assert host.find(name).uuid == uuid
    assert host.find(name).autostart()
    assert image_holds(host.images / "vm.qcow2", "qcow2", 3)
    host.find(name).set_autostart(on=False)


def test_in_place_refuses_a_running_domain(host: RestoreHost) -> None:
    """A running domain is not touched without stop; with it, it is shut off, restored, and started if asked."""
    domain = host.simple(fill=1)
    host.factory.make(domain)
    write(host.images / "vm.qcow2", "qcow2", 2)
    domain.start(paused=True)
    before = host.files()
    with pytest.raises(DomainBusy) as refusal:
        host.restore(domain.name, Mode.IN_PLACE)
    assert "--stop" in refusal.value.remedy
    assert host.files() == before
    assert domain.state() is DomainState.PAUSED
    host.restore(domain.name, Mode.IN_PLACE, stop=True, start=True)
    assert domain.state() is DomainState.RUNNING
    domain.destroy()
    assert image_holds(host.images / "vm.qcow2", "qcow2", 1)


def test_a_definition_that_libvirt_refuses_stops_no_guest(host: RestoreHost) -> None:
    """What libvirt would not define is known before the guest is stopped: it runs on, and nothing is changed."""
    domain = host.simple(fill=1)
    host.factory.make(domain, edit_xml=lambda xml: xml.replace("<memballoon model='none'/>", "<memballoon model='x'/>"))
    write(host.images / "vm.qcow2", "qcow2", 2)
    domain.start(paused=True)
    xml, before, life = domain.inactive_xml(), host.files(), life_of(domain.uuid)
    with pytest.raises(HypervisorError):
        host.restore(domain.name, Mode.IN_PLACE, stop=True)
    assert (domain.state(), life_of(domain.uuid)) == (DomainState.PAUSED, life)
    assert canonicalize(domain.inactive_xml()) == canonicalize(xml)
    assert host.files() == before
    with pytest.raises(HypervisorError):
        host.restore(domain.name, Mode.COPY)
    assert host.files() == before
    assert host.names() == {domain.name}


@pytest.mark.parametrize("transient", [False, True], ids=["persistent", "transient"])
def test_a_failure_after_the_swap_puts_everything_back(host: RestoreHost, transient: bool) -> None:  # noqa: FBT001
    """When a device turns out to be in use, image, definition, state and persistence are as before, to the inode."""
    with loop_device(host.root / "device.img", 16 * MIB) as device:
        disks = [DiskSpec("vda", host.image("vm.qcow2")), DiskSpec("vdb", device, format="raw", kind="block")]
        domain = host.define(disks)
        host.factory.make(domain)
        xml = domain.inactive_xml()
        if transient:
            domain.undefine()
            domain = host.hypervisor.create_transient(xml, paused=True)
        else:
            domain.start(paused=True)
        life, before, held = life_of(domain.uuid), host.files(), list[int]()

        def hold(_done: int, _total: int) -> None:
            if not held:
                held.append(os.open(device, os.O_RDONLY | os.O_EXCL))

        request = Request(domain.name, Wish(Mode.IN_PLACE, overwrite_devices=True), stop=True)
        with pytest.raises(DiskMissing):
            restore(host.config, request, progress=hold)
        os.close(held[0])
        assert domain.state() is DomainState.RUNNING
        assert life_of(domain.uuid) != life
        assert domain.persistent() is not transient
        assert host.files() == before
        if not transient:
            assert canonicalize(domain.inactive_xml()) == canonicalize(xml)


def test_a_vm_that_was_started_meanwhile_is_not_stopped_unasked(host: RestoreHost) -> None:
    """A VM that somebody starts while its archive is extracted goes on running on its disks, and the restore ends."""
    domain = host.simple(fill=1)
    host.factory.make(domain)
    write(host.images / "vm.qcow2", "qcow2", 2)
    before = host.files()

    def start(_done: int, _total: int) -> None:
        if domain.state() is DomainState.SHUT_OFF:
            domain.start(paused=True)

    with pytest.raises(DomainBusy) as refusal:
        restore(host.config, Request(domain.name, Wish(Mode.IN_PLACE)), progress=start)
    assert "--stop" in refusal.value.remedy
    assert domain.state() is DomainState.PAUSED
    domain.destroy()
    assert host.files().keys() == before.keys()
    assert image_holds(host.images / "vm.qcow2", "qcow2", 2)


def test_another_vm_of_the_same_name_is_not_restored_over(host: RestoreHost) -> None:
    """An archive of another VM that had this name is refused in place, and the remedy does not lead back here."""
    first = host.simple()
    archive = host.factory.make(first)
    first.undefine()
    second = host.define([DiskSpec("vda", host.image("second.qcow2"))])
    with pytest.raises(TargetExists) as refusal:
        host.restore(second.name, Mode.IN_PLACE, archive=archive)
    assert first.uuid in refusal.value.evidence
    assert "--in-place" not in refusal.value.remedy


def test_a_vm_comes_back_without_the_disk_that_was_excluded(host: RestoreHost) -> None:
    """After a total loss an excluded disk is left out with a word; one whose file is still here when that is asked."""
    scratch = host.image("scratch.qcow2", fill=2)
    domain = host.define([DiskSpec("vda", host.image("vm.qcow2")), DiskSpec("vdb", scratch)])
    name = domain.name
    host.factory.make(domain, exclude=["vdb"])
    domain.undefine()
    (host.images / "vm.qcow2").unlink()
    with pytest.raises(UnsafeArchive) as refusal:
        host.restore(name, Mode.IN_PLACE)
    assert "--leave-out" in refusal.value.remedy
    host.restore(name, Mode.IN_PLACE, leave_out=frozenset({"vdb"}))
    assert set(disk_sources(host.find(name).inactive_xml())) == {"vda"}
    host.find(name).undefine()
    (host.images / "vm.qcow2").unlink()
    scratch.unlink()
    result = host.restore(name, Mode.IN_PLACE, start=True)
    assert set(disk_sources(host.find(name).inactive_xml())) == {"vda"}
    assert any("vdb" in warning and "scratch.qcow2" in warning for warning in result.warnings)


def test_a_former_image_that_a_kill_left_is_named(host: RestoreHost) -> None:
    """The next restore names what a killed one put aside, as perhaps the only newest copy of a disk."""
    domain = host.simple()
    host.factory.make(domain)
    aside = host.images / "vm.qcow2.vmborg-old-20260101T000000Z"
    (host.images / "vm.qcow2").rename(aside)
    result = host.restore(domain.name, Mode.IN_PLACE)
    assert any(str(aside) in warning and "newest copy" in warning for warning in result.warnings)
    assert aside.exists()


def test_in_place_never_replaces_a_template(host: RestoreHost) -> None:
    """In place, a template that is the archived one is used; one that differs stays, the archived goes beside it."""
    template = host.image("template.qcow2", fill=5)
    clone = host.image("clone.qcow2", backing=template)
    domain = host.define([DiskSpec("vda", clone)])
    host.define([DiskSpec("vda", host.image("sibling.qcow2", backing=template))], name="sibling")
    host.factory.make(domain)
    inode = template.stat().st_ino
    host.restore(domain.name, Mode.IN_PLACE)
    assert template.stat().st_ino == inode
    assert [image.path for image in images.chain(str(clone), "qcow2")] == [str(clone), str(template)]
    write(template, "qcow2", 9)
    changed = digest(template)
    host.restore(domain.name, Mode.IN_PLACE)
    assert digest(template) == changed
    below = images.chain(str(clone), "qcow2")[1].path
    assert below.startswith(f"{host.images}/template.vmborg-2026")
    assert image_holds(clone, "qcow2", 5)


def test_in_place_refuses_what_another_domain_uses(host: RestoreHost) -> None:
    """An image that another domain's shut-off clone lies on is not replaced under it."""
    domain = host.simple(fill=1)
    host.factory.make(domain)
    clone = host.image("clone.qcow2", backing=host.images / "vm.qcow2")
    other = host.define([DiskSpec("vda", clone)], name="other")
    before = host.files()
    with pytest.raises(TargetExists, match=other.name):
        host.restore(domain.name, Mode.IN_PLACE)
    assert host.files() == before


def test_an_undefined_domains_image_is_not_overwritten(host: RestoreHost) -> None:
    """In place, an image at the old path that no definition of this VM names is refused, not replaced."""
    domain = host.simple()
    name = domain.name
    host.factory.make(domain)
    domain.undefine()
    with pytest.raises(TargetExists, match=r"vm\.qcow2"):
        host.restore(name, Mode.IN_PLACE)
    assert host.names() == set()


def test_a_block_device_becomes_a_file_or_is_written_over(host: RestoreHost) -> None:
    """A copy makes a raw file of a block device; in place the device is only written with consent."""
    with loop_device(host.root / "device.img", 16 * MIB) as device:
        write(device, "raw", 4)
        domain = host.define([DiskSpec("vda", device, format="raw", kind="block")])
        host.factory.make(domain)
        copy = host.restore(domain.name, Mode.COPY, to=str(host.images))
        assert image_holds(copy.disks["vda"], "raw", 4)
        write(device, "raw", 9)
        with pytest.raises(RestoreError, match="block devices"):
            host.restore(domain.name, Mode.IN_PLACE)
        assert image_holds(device, "raw", 9)
        result = host.restore(domain.name, Mode.IN_PLACE, overwrite_devices=True)
        assert result.disks == {"vda": str(device)}
        assert image_holds(device, "raw", 4)


def test_an_image_behind_a_link_is_replaced_where_it_is(host: RestoreHost) -> None:
    """In place, a disk that the definition names by a symbolic link keeps the link; the file behind it is replaced."""
    real, link = host.image("real.qcow2", fill=1), host.images / "link.qcow2"
    link.symlink_to(real)
    domain = host.define([DiskSpec("vda", link)])
    host.factory.make(domain)
    write(real, "qcow2", 2)
    host.restore(domain.name, Mode.IN_PLACE)
    assert link.readlink() == real
    assert image_holds(real, "qcow2", 1)
    assert disk_sources(domain.inactive_xml()) == {"vda": str(link)}
