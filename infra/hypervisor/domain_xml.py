"""Reading a domain definition. Pure.

Element and attribute names are those of libvirt's formatdomain.html. A definition may come out of an archive,
so a DTD, and with it every entity that somebody declared, is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from infra.errors import DomainXmlError
from infra.hypervisor.parsed import ParsedDisk, ParsedDomain, ParsedImage, ParsedMirror, ParsedTpm

AGENT_CHANNEL = "org.qemu.guest_agent.0"

_LOCAL = {"file": "file", "block": "dev"}
"""Source types that are a path of this host, and the attribute that holds it."""

VolumePath = Callable[[str, str], str]
"""Storage pool and volume to the volume's path on this host, "" if it has none."""


def parse_root(xml: str) -> Element:
    """The root of a definition. Raises DomainXmlError for what is not XML, is no domain, or has a DTD."""
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException as error:
        raise DomainXmlError(
            "A domain definition declares a DTD or entities.",
            evidence=repr(error),
            remedy="libvirt writes neither: the definition was tampered with. Do not use it.",
        ) from error
    except (ParseError, ValueError) as error:
        raise DomainXmlError(
            "A domain definition is not well-formed XML.",
            evidence=str(error),
            remedy="Compare it with virsh dumpxml.",
        ) from error
    if root.tag != "domain":
        raise DomainXmlError("A domain definition was expected, and something else found.", evidence=f"<{root.tag}>")
    return root


def parse_domain(xml: str, *, volume_path: VolumePath | None = None) -> ParsedDomain:
    """Read a definition, live or inactive. Raises DomainXmlError.

    `volume_path` gives the paths of disks that are named by storage pool and volume (Domain.live and Domain.inactive
    ask libvirt). Without it such an image keeps the address POOL/VOLUME, which is no path.
    """
    root = parse_root(xml)
    channels = root.findall(f"devices/channel/target[@name='{AGENT_CHANNEL}']")
    return ParsedDomain(
        uuid=_text(root, "uuid"),
        name=root.findtext("name") or "",
        live=root.get("id") is not None,
        disks=tuple(_at_volume(_disk(element), volume_path) for element in root.iterfind("devices/disk")),
        loader=_text(root, "os/loader"),
        nvram=_nvram(root.find("os/nvram")),
        kernel=_text(root, "os/kernel"),
        initrd=_text(root, "os/initrd"),
        dtb=_text(root, "os/dtb"),
        tpm=_tpm(root.find("devices/tpm/backend[@type='emulator']")),
        has_agent_channel=bool(channels),
        agent_connected=any(channel.get("state") == "connected" for channel in channels),
    )


def is_live(xml: str) -> bool:
    """Whether this is the definition of a running domain: only those carry libvirt's number."""
    return parse_root(xml).get("id") is not None


def agent_connected(xml: str) -> bool:
    """Whether the live definition shows an open guest agent channel."""
    return parse_domain(xml).agent_connected


def disk_sources(xml: str) -> dict[str, str]:
    """Target to active source; "" for an empty drive. Raises DomainXmlError."""
    return {disk.target: disk.image.path for disk in parse_domain(xml).disks}


def all_paths(xml: str) -> set[str]:
    """Every path that a disk of the definition names anywhere: chains, mirrors, external data files.

    Too much rather than too little: it decides which files must not be removed. Volumes of storage pools are
    named by `all_volumes`.
    """
    sources = _all_sources(xml)
    return {path for source in sources for key in ("file", "dev", "dir", "path") if (path := source.get(key))}


def all_volumes(xml: str) -> set[tuple[str, str]]:
    """Every (storage pool, volume) that a disk of the definition names anywhere."""
    return {
        (pool, volume)
        for source in _all_sources(xml)
        if (pool := source.get("pool")) and (volume := source.get("volume"))
    }


def _all_sources(xml: str) -> Iterator[Element]:
    for disk in parse_root(xml).iterfind("devices/disk"):
        yield from disk.iter("source")
        yield from disk.iter("mirror")  # libvirt before 1.2.6 put the path here


def _text(parent: Element, path: str) -> str:
    return (parent.findtext(path) or "").strip()


def _disk(element: Element) -> ParsedDisk:
    target = element.find("target")
    backing, complete = _backing(element)
    return ParsedDisk(
        target="" if target is None else target.get("dev", ""),
        device=element.get("device", "disk"),
        image=_image(element, form=_attribute(element, "driver", "type"), encryption=_encryption(element)),
        bus="" if target is None else target.get("bus", ""),
        serial=_text(element, "serial"),
        readonly=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        transient=element.find("transient") is not None,
        mirror=_mirror(element.find("mirror")),
        backing=backing,
        backing_complete=complete,
    )


def _at_volume(disk: ParsedDisk, volume_path: VolumePath | None) -> ParsedDisk:
    if volume_path is None:
        return disk

    def located(image: ParsedImage) -> ParsedImage:
        path = volume_path(image.pool, image.volume) if image.kind == "volume" else ""
        return replace(image, path=path) if path else image

    mirror = disk.mirror and replace(disk.mirror, image=located(disk.mirror.image))
    backing = tuple(located(image) for image in disk.backing)
    return replace(disk, image=located(disk.image), backing=backing, mirror=mirror)


def _attribute(parent: Element, path: str, name: str) -> str:
    found = parent.find(path)
    return "" if found is None else found.get(name, "")


def _encryption(holder: Element) -> str:
    """<encryption> stands in <source>, in older definitions in <disk> itself."""
    return _attribute(holder, "source/encryption", "format") or _attribute(holder, "encryption", "format")


def _image(holder: Element, *, form: str, encryption: str = "") -> ParsedImage:
    """The image whose type and <source> `holder` has: a disk, a backing store, a mirror, an NVRAM."""
    kind = holder.get("type", "file")
    source = holder.find("source")
    if source is None:
        return ParsedImage(kind="", path="", format=form)
    path = source.get(_LOCAL[kind], "") if kind in _LOCAL else _address(kind, source)
    return ParsedImage(
        kind=kind if path else "",
        path=path,
        format=form,
        pool=source.get("pool", ""),
        volume=source.get("volume", ""),
        encryption=encryption,
        sliced=source.find("slices") is not None,
    )


def _address(kind: str, source: Element) -> str:
    """What tells a person where the image is, in the shape of an address."""
    if kind == "network":
        return _network_address(source)
    if kind == "volume":
        return f"{source.get('pool', '')}/{source.get('volume', '')}"
    if kind == "nvme":
        address = source.find("address")
        parts = {} if address is None else address.attrib
        place = ":".join(parts.get(key, "0").removeprefix("0x") for key in ("domain", "bus", "slot"))
        function = parts.get("function", "0").removeprefix("0x")
        return f"nvme://{place}.{function}/{source.get('namespace', '')}"
    return next((value for key in ("dir", "path", "dev", "file") if (value := source.get(key))), "")


def _network_address(source: Element) -> str:
    hosts = [
        host.get("socket") or ":".join(filter(None, (host.get("name"), host.get("port"))))
        for host in source.iterfind("host")
    ]
    return f"{source.get('protocol', '')}://{','.join(hosts)}/{source.get('name', '')}"


def _backing(disk: Element) -> tuple[tuple[ParsedImage, ...], bool]:
    """The nested backing stores, and whether the innermost one says that nothing follows."""
    images: list[ParsedImage] = []
    store = disk.find("backingStore")
    while store is not None:
        if store.find("source") is None:
            return tuple(images), True
        images.append(_image(store, form=_attribute(store, "format", "type"), encryption=_encryption(store)))
        store = store.find("backingStore")
    return tuple(images), False


def _mirror(element: Element | None) -> ParsedMirror | None:
    if element is None:
        return None
    image = _image(element, form=_attribute(element, "format", "type"))
    # `abort` and `pivot` are further values of `ready`: a job that is ending.
    return ParsedMirror(image=image, job=element.get("job", "copy"), ready=element.get("ready") == "yes")


def _nvram(element: Element | None) -> ParsedImage | None:
    """<nvram>/path</nvram> or, since libvirt 8.5, <nvram type='file'><source file='/path'/></nvram>."""
    if element is None:
        return None
    form = element.get("format", "raw")
    text = (element.text or "").strip()
    if text:
        return ParsedImage(kind="file", path=text, format=form)
    image = _image(element, form=form)
    return image if image.path else None


def _tpm(backend: Element | None) -> ParsedTpm | None:
    if backend is None:
        return None
    return ParsedTpm(version=backend.get("version", "1.2"), source=_attribute(backend, "source", "path"))
