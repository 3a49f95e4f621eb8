"""Restores over the VM itself: what makes way comes back when anything fails, and what others use stays."""

from collections.abc import Iterator
from xml.etree.ElementTree import canonicalize

import pytest

from infra.errors import (
    DomainBusy,
    HypervisorError,
    RestoreError,
    TargetExists,
)
from infra.hypervisor import images
from infra.hypervisor.domain_xml import disk_sources
from infra.model import DomainState
from tasks.restore import Mode
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


def test_a_failure_after_the_swap_puts_everything_back(host: RestoreHost) -> None:
    """When libvirt refuses the definition, image, definition and state are as before, to the inode."""
    domain = host.simple(fill=1)
    host.factory.make(domain, edit_xml=lambda xml: xml.replace("<memballoon model='none'/>", "<memballoon model='x'/>"))
    write(host.images / "vm.qcow2", "qcow2", 2)
    domain.start(paused=True)
    xml, before = domain.inactive_xml(), host.files()
    with pytest.raises(HypervisorError):
        host.restore(domain.name, Mode.IN_PLACE, stop=True)
    assert domain.state() is DomainState.RUNNING
    domain.destroy()
    assert canonicalize(domain.inactive_xml()) == canonicalize(xml)
    assert host.files() == before
    with pytest.raises(HypervisorError):
        host.restore(domain.name, Mode.COPY)
    assert host.files() == before
    assert host.names() == {domain.name}


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
