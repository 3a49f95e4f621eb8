"""Pointing a definition's disk back at its base. Pure.

Done on the document's nodes rather than on ElementTree's, which would move namespace declarations: everything else in
the definition stays as libvirt wrote it.
"""

from collections.abc import Iterator
from xml.dom.minidom import Document, Element

from defusedxml.minidom import parseString

from infra.hypervisor.domain_xml import parse_root
from infra.model import ImageKind, Overlay

_ATTRIBUTES = {ImageKind.FILE: "file", ImageKind.BLOCK: "dev"}


def with_base(xml: str, overlay: Overlay) -> str:
    """The definition with the overlay's disk on its base; unchanged where it is not on the overlay.

    An overlay of a block device is a file and of another format: the disk's type, its source and its driver's type go
    back. What libvirt kept of the base's source (labels, encryption) is taken over. Raises DomainXmlError.
    """
    parse_root(xml)  # for its errors
    document: Document = parseString(xml, forbid_dtd=True)
    disks = [disk for disk in document.getElementsByTagName("disk") if _is_on(disk, overlay)]
    for disk in disks:
        _put_on_base(document, disk, overlay)
    root = document.documentElement
    return root.toxml() if disks and root is not None else xml


def _children(parent: Element, name: str) -> Iterator[Element]:
    for node in list(parent.childNodes):
        if isinstance(node, Element) and node.tagName == name:
            yield node


def _is_on(disk: Element, overlay: Overlay) -> bool:
    on_target = any(target.getAttribute("dev") == overlay.target for target in _children(disk, "target"))
    return on_target and any(source.getAttribute("file") == overlay.path for source in _children(disk, "source"))


def _put_on_base(document: Document, disk: Element, overlay: Overlay) -> None:
    base = _base_source(document, disk, overlay)
    disk.setAttribute("type", str(overlay.base_kind))
    for source in _children(disk, "source"):
        disk.replaceChild(base, source)
    for name in ("backingStore", "mirror"):
        for element in _children(disk, name):
            disk.removeChild(element)
    drivers = list(_children(disk, "driver"))
    if not drivers:
        drivers = [document.createElement("driver")]
        drivers[0].setAttribute("name", "qemu")
        disk.insertBefore(drivers[0], base)
    drivers[0].setAttribute("type", overlay.base_format)


def _base_source(document: Document, disk: Element, overlay: Overlay) -> Element:
    attribute = _ATTRIBUTES[overlay.base_kind]
    for store in _children(disk, "backingStore"):
        for source in _children(store, "source"):
            if source.getAttribute(attribute) == overlay.base:
                if source.hasAttribute("index"):
                    source.removeAttribute("index")  # libvirt's own number of a node of the live chain
                return source
    source = document.createElement("source")
    source.setAttribute(attribute, overlay.base)
    return source
