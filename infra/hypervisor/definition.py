"""Pointing a definition's disk back at its base. Pure.

Done on the document's nodes rather than on ElementTree's, which would move namespace declarations: everything else in
the definition stays as libvirt wrote it.
"""

from collections.abc import Iterator
from xml.dom.minidom import Document, Element

from defusedxml.minidom import parseString

from infra.hypervisor.domain_xml import VolumePath, parse_root
from infra.model import ImageKind, Overlay

_ATTRIBUTES = {ImageKind.FILE: "file", ImageKind.BLOCK: "dev"}


def with_base(xml: str, overlay: Overlay, *, volume_path: VolumePath) -> str:
    """The definition with the overlay's disk on its base; unchanged where it is not on the overlay.

    An overlay of a block device is a file and of another format: the disk's type, its source and its driver's type go
    back. Where libvirt kept the base's own source (labels, encryption, a storage pool's volume), that is taken.
    Raises DomainXmlError.
    """
    parse_root(xml)  # for its errors
    document: Document = parseString(xml, forbid_dtd=True)
    disks = [disk for disk in document.getElementsByTagName("disk") if _is_on(disk, overlay)]
    for disk in disks:
        kind, base = _kept_source(disk, overlay, volume_path) or _new_source(document, overlay)
        disk.setAttribute("type", kind)
        _put_on_base(document, disk, base=base, base_format=overlay.base_format)
    root = document.documentElement
    return root.toxml() if disks and root is not None else xml


def _children(parent: Element, name: str) -> Iterator[Element]:
    for node in list(parent.childNodes):
        if isinstance(node, Element) and node.tagName == name:
            yield node


def _is_on(disk: Element, overlay: Overlay) -> bool:
    on_target = any(target.getAttribute("dev") == overlay.target for target in _children(disk, "target"))
    return on_target and any(source.getAttribute("file") == overlay.path for source in _children(disk, "source"))


def _put_on_base(document: Document, disk: Element, *, base: Element, base_format: str) -> None:
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
    drivers[0].setAttribute("type", base_format)


def _kept_source(disk: Element, overlay: Overlay, volume_path: VolumePath) -> tuple[str, Element] | None:
    for store in _children(disk, "backingStore"):
        for source in _children(store, "source"):
            path = source.getAttribute(_ATTRIBUTES[overlay.base_kind])
            if store.getAttribute("type") == "volume":
                path = volume_path(source.getAttribute("pool"), source.getAttribute("volume"))
            if path == overlay.base:
                if source.hasAttribute("index"):
                    source.removeAttribute("index")  # libvirt's own number of a node of the live chain
                return store.getAttribute("type"), source
    return None


def _new_source(document: Document, overlay: Overlay) -> tuple[str, Element]:
    source = document.createElement("source")
    source.setAttribute(_ATTRIBUTES[overlay.base_kind], overlay.base)
    return str(overlay.base_kind), source
