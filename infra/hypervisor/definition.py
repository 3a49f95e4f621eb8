"""Pointing a definition's disk back at its base. Pure."""

import re
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from infra.hypervisor.domain_xml import parse_root
from infra.model import ImageKind, Overlay

_ATTRIBUTES = {ImageKind.FILE: "file", ImageKind.BLOCK: "dev"}
_NAMESPACE = re.compile(r"""xmlns:([A-Za-z_][\w.-]*)=["']([^"']+)["']""")
_RESERVED = re.compile(r"xml|ns\d+$")


def with_base(xml: str, overlay: Overlay) -> str:
    """The definition with the overlay's disk on its base; unchanged where it is not on the overlay.

    An overlay of a block device is a file and of another format: the disk's type, its source and its
    driver's type go back. What libvirt kept of the base's source (labels, encryption) is taken over. Raises
    DomainXmlError.
    """
    root = parse_root(xml)
    disks = [disk for disk in root.iterfind("devices/disk") if _is_on(disk, overlay)]
    if not disks:
        return xml
    for disk in disks:
        _put_on_base(disk, overlay)
    for prefix, uri in _NAMESPACE.findall(xml):
        if not _RESERVED.match(prefix):  # ElementTree would invent other prefixes: the same to libvirt, not to people
            register_namespace(prefix, uri)
    return tostring(root, encoding="unicode")


def _is_on(disk: Element, overlay: Overlay) -> bool:
    target, source = disk.find("target"), disk.find("source")
    if target is None or source is None:
        return False
    return target.get("dev") == overlay.target and source.get("file") == overlay.path


def _put_on_base(disk: Element, overlay: Overlay) -> None:
    base = _base_source(disk, overlay)
    disk.set("type", str(overlay.base_kind))
    for tag in ("source", "backingStore", "mirror"):
        for element in disk.findall(tag):
            disk.remove(element)
    disk.append(base)
    driver = disk.find("driver")
    if driver is None:
        driver = SubElement(disk, "driver", name="qemu")
    driver.set("type", overlay.base_format)


def _base_source(disk: Element, overlay: Overlay) -> Element:
    attribute = _ATTRIBUTES[overlay.base_kind]
    kept = disk.find("backingStore/source")
    if kept is None or kept.get(attribute) != overlay.base:
        kept = Element("source")
    kept.set(attribute, overlay.base)
    kept.attrib.pop("index", None)
    return kept
