"""Definitions whose disks lie on chains that they name themselves."""

from defusedxml.ElementTree import fromstring

from infra.hypervisor.chain_xml import Chain, driver_of, with_chains
from infra.hypervisor.domain_xml import parse_domain

XML = """<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name>
  <os><type>hvm</type><kernel>/old/kernel</kernel></os>
  <devices>
    <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
      <source dev='/dev/vg/web' index='3'/><backingStore/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><source file='/a.iso'/><target dev='sda' bus='sata'/></disk>
  </devices></domain>"""


def test_a_chain_is_named_to_its_end() -> None:
    """The images in their order, closed; direct I/O is left out, all else of the driver and the other disks stay."""
    made = with_chains(XML, {"vda": Chain((("/o.qcow2", "qcow2"), ("/v/top", "qcow2"), ("/v/base", "raw")))})
    disk, cdrom = parse_domain(made).disks
    assert (disk.image.kind, disk.image.path, disk.image.format) == ("file", "/o.qcow2", "qcow2")
    assert [(image.path, image.format) for image in disk.backing] == [("/v/top", "qcow2"), ("/v/base", "raw")]
    assert disk.backing_complete
    assert cdrom.image.path == "/a.iso"
    assert driver_of(made, "vda") == ("", "")
    driver = fromstring(made).find("devices/disk/driver")
    assert driver is not None
    assert driver.get("discard") == "unmap"
    assert "/dev/vg/web" not in made


def test_one_image_needs_no_chain_and_gets_its_driver_back() -> None:
    """What was above others and stands alone: no list, cache and io as they were, new places of boot files."""
    cache, io = driver_of(XML, "vda")
    assert (cache, io) == ("none", "native")
    chained = with_chains(XML, {"vda": Chain((("/o.qcow2", "qcow2"), ("/v/top", "raw")))})
    alone = with_chains(chained, {"vda": Chain((("/o.qcow2", "qcow2"),), cache, io)}, {"kernel": "/new/kernel"})
    disk = parse_domain(alone).disks[0]
    assert (disk.image.path, disk.backing, disk.backing_complete) == ("/o.qcow2", (), False)
    assert driver_of(alone, "vda") == ("none", "native")
    assert parse_domain(alone).kernel == "/new/kernel"
    assert driver_of(alone, "vdz") == ("", "")
