"""A definition whose disks lie on chains that it names itself, whatever the headers of their images say. Pure.

libvirt opens exactly what <backingStore> names, and leaves the backing file in the header aside (tried: libvirt 9.0
with a header that named a file which was gone).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from infra.hypervisor.device_xml import disk_target, remove_children
from infra.hypervisor.restore_xml import keep_prefixes, parse

_OF_DIRECT_IO = ("cache", "io")


@dataclass(frozen=True, slots=True)
class Chain:
    """A disk's images, that which the guest writes to first: path and format of each."""

    images: tuple[tuple[str, str], ...]
    cache: str = ""  # of the disk's driver, and `io`; "" for libvirt's default
    io: str = ""

    @property
    def paths(self) -> frozenset[str]:
        """Every image's path."""
        return frozenset(path for path, _ in self.images)


def with_chains(xml: str, chains: Mapping[str, Chain], boot_files: Mapping[str, str] | None = None) -> str:
    """The definition with these disks, by target, on these chains of files; one of a single image needs no list.

    `boot_files` are new paths of kernel, initrd and the like by role. Raises UnsafeArchive, DomainXmlError.
    """
    root = parse(xml)
    for disk in root.iterfind("devices/disk"):
        if disk_target(disk) in chains:
            _put(disk, chains[disk_target(disk)])
    for role, path in (boot_files or {}).items():
        for element in root.iterfind(f"os/{role}"):
            element.text = path
    keep_prefixes(xml)
    return tostring(root, encoding="unicode")


def driver_of(xml: str, target: str) -> tuple[str, str]:
    """`cache` and `io` of a disk's driver."""
    for disk in parse(xml).iterfind("devices/disk"):
        driver = disk.find("driver")
        if disk_target(disk) == target and driver is not None:
            return driver.get("cache", ""), driver.get("io", "")
    return "", ""


def _put(disk: Element, chain: Chain) -> None:
    path, image_format = chain.images[0]
    disk.set("type", "file")
    remove_children(disk, "backingStore", "mirror")
    source, driver = disk.find("source"), disk.find("driver")
    if source is None:
        source = SubElement(disk, "source")
    if driver is None:
        driver = SubElement(disk, "driver", name="qemu")
    source.attrib.pop("dev", None)
    source.attrib.pop("index", None)
    source.set("file", path)
    driver.set("type", image_format)
    for attribute, value in zip(_OF_DIRECT_IO, (chain.cache, chain.io), strict=True):
        driver.attrib.pop(attribute, None)
        if value:
            driver.set(attribute, value)
    parent = disk
    for below, below_format in chain.images[1:]:
        parent = SubElement(parent, "backingStore", type="file")
        SubElement(parent, "format", type=below_format)
        SubElement(parent, "source", file=below)
    if len(chain.images) > 1:
        SubElement(parent, "backingStore")
