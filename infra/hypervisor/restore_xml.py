"""Making an archived definition fit the place it is restored to. Pure.

A copy (`--as`) must not share anything writable with its original: it gets its own name, UUID, MAC addresses,
firmware state and sockets, and loses every disk that was not restored. A domain put back in place keeps its
identity.
"""

import posixpath
import secrets
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from xml.etree.ElementTree import Element, ParseError, SubElement, register_namespace, tostring

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring, iterparse

from infra.errors import DomainXmlError, UnsafeArchive
from infra.hypervisor.device_xml import (
    character_devices,
    describe_source,
    disk_target,
    is_channel_socket,
    is_log,
    is_removable,
    remove_children,
)
from infra.model import ImageKind

_SOURCE_ATTRIBUTES = ("file", "dev", "dir", "pool", "volume", "mode", "protocol", "name", "index")


@dataclass(frozen=True, slots=True)
class DiskPlace:
    """Where a disk's active image is after the restore."""

    path: str
    format: str  # qemu's name: qcow2, raw
    kind: ImageKind


@dataclass(frozen=True, slots=True)
class RewritePlan:
    """What the definition is to say."""

    name: str
    uuid: str
    disks: Mapping[str, DiskPlace]  # by disk target
    boot_files: Mapping[str, str] = field(default_factory=dict[str, str])  # role (nvram, kernel, ...) -> path
    copy: bool = False  # a second domain beside the original
    leave_out: frozenset[str] = frozenset()  # targets of disks that the definition is to be without
    keep_nvram: bool = False  # also where it was not archived: the domain has one here
    missing_media: frozenset[str] = frozenset()  # targets of removable or read-only disks whose source is not here


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A definition that fits, and what the administrator should know about it."""

    xml: str
    warnings: tuple[str, ...] = ()


def parse(xml: str) -> Element:
    """The root of a definition that nobody vouches for.

    Raises UnsafeArchive for a DTD or entities (libvirt writes neither), DomainXmlError when it is no domain.
    """
    try:
        root = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException as error:
        raise UnsafeArchive(
            "The archived definition holds a DTD or entities.",
            evidence=repr(error),
            remedy="Do not restore it: libvirt never writes these. `restore --files-only` brings back the disks alone.",
        ) from error
    except (ParseError, ValueError) as error:
        raise DomainXmlError("The archived definition cannot be read.", evidence=str(error)) from error
    if root.tag != "domain" or root.find("devices") is None:
        raise DomainXmlError("The archived definition is not that of a domain.", evidence=f"<{root.tag}>")
    return root


def random_mac() -> str:
    """A MAC address of the range that qemu and libvirt use (52:54:00)."""
    return ":".join(["52", "54", "00", *(f"{byte:02x}" for byte in secrets.token_bytes(3))])


def rewrite(xml: str, plan: RewritePlan, *, new_mac: Callable[[], str] = random_mac) -> Rewritten:
    """The definition as `plan` wants it. Raises UnsafeArchive and DomainXmlError (see `parse`)."""
    root = parse(xml)
    devices = root.findall("devices")[0]  # parse() has seen to it
    old_name, old_uuid = root.findtext("name", ""), root.findtext("uuid", "")
    warnings: list[str] = []
    root.attrib.pop("id", None)
    _set_identity(root, plan.name, plan.uuid)
    _rewrite_disks(devices, plan, warnings)
    _set_boot_files(root, plan)
    _drop_runtime(root, devices)
    if plan.copy:
        _separate_network(devices, new_mac)
        names = {old_name: plan.name, old_uuid: plan.uuid}
        _separate_character_devices(devices, names, warnings)
        _separate_addresses(devices, warnings)
    keep_prefixes(xml)
    return Rewritten(tostring(root, encoding="unicode"), tuple(warnings))


def keep_prefixes(xml: str) -> None:
    """Programs find their metadata by namespace, people by its prefix: write those that were read."""
    for _, (prefix, uri) in iterparse(StringIO(xml), events=("start-ns",), forbid_dtd=True):
        try:
            register_namespace(prefix, uri)
        except ValueError:
            continue  # ns0 and the like are made up by whoever wrote them


def with_identity(xml: str, *, name: str, uuid: str) -> str:
    """The same domain under another name and UUID, and nothing else changed: to try whether libvirt takes it."""
    root = parse(xml)
    _set_identity(root, name, uuid)
    keep_prefixes(xml)
    return tostring(root, encoding="unicode")


def _set_identity(root: Element, name: str, uuid: str) -> None:
    for tag, value in (("name", name), ("uuid", uuid)):
        element = root.find(tag)
        if element is None:
            element = SubElement(root, tag)
        element.text = value
    for entry in root.iterfind("sysinfo/system/entry[@name='uuid']"):
        entry.text = uuid  # libvirt refuses a definition in which the two differ
    genid = root.find("genid")
    if genid is not None:
        # The guest must learn that its time went back (libvirt, formatdomain: genid changes on a restore).
        genid.text = str(uuids.uuid4())


def _rewrite_disks(devices: Element, plan: RewritePlan, warnings: list[str]) -> None:
    for disk in devices.findall("disk"):
        target = disk_target(disk)
        remove_children(disk, "backingStore", "mirror")
        if target in plan.disks:
            _place(disk, plan.disks[target])
        elif target in plan.missing_media and is_removable(disk):
            warnings.append(f"{target}: ejected, its medium {describe_source(disk)} is not on this host")
            remove_children(disk, "source")
        elif plan.copy and _is_writable_floppy(disk):
            warnings.append(f"{target}: ejected, its medium {describe_source(disk)} is the original's to write to")
            remove_children(disk, "source")
        elif target in plan.leave_out:
            warnings.append(f"{target}: left out, it is not in the archive ({describe_source(disk)})")
            devices.remove(disk)


def _place(disk: Element, place: DiskPlace) -> None:
    disk.set("type", str(place.kind))
    source = disk.find("source")
    if source is None:
        source = SubElement(disk, "source")
    for attribute in _SOURCE_ATTRIBUTES:
        source.attrib.pop(attribute, None)
    remove_children(source, "host", "reservations", "dataStore")
    source.set("file" if place.kind is ImageKind.FILE else "dev", place.path)
    driver = disk.find("driver")
    if driver is None:
        driver = SubElement(disk, "driver", name="qemu")
    driver.set("type", place.format)


def _set_boot_files(root: Element, plan: RewritePlan) -> None:
    system = root.find("os")
    if system is None:
        return
    for role, path in plan.boot_files.items():
        element = system.find(role)
        if element is None:
            element = SubElement(system, role)
        source = element.find("source")
        if source is not None:  # <nvram type='file'><source file=…/></nvram>, libvirt 8.5
            element.set("type", "file")
            source.attrib.clear()
            source.set("file", path)
        else:
            element.text = path
    if "nvram" not in plan.boot_files and not plan.keep_nvram:
        for nvram in system.findall("nvram"):  # libvirt makes one from the template, under the domain's own name
            nvram.text = None
            nvram.attrib.pop("type", None)
            remove_children(nvram, "source")


def _drop_runtime(root: Element, devices: Element) -> None:
    """What a live definition holds and a new one must not: labels, terminals, sockets of libvirt's own."""
    for label in root.findall("seclabel"):
        if label.get("type", "dynamic") == "dynamic":
            root.remove(label)
    for device in character_devices(devices):
        source = device.find("source")
        if source is None:
            continue
        if device.get("type") == "pty" or is_channel_socket(device, source):
            device.remove(source)
            device.attrib.pop("tty", None)


def _separate_network(devices: Element, new_mac: Callable[[], str]) -> None:
    for interface in devices.findall("interface"):
        mac = interface.find("mac")
        if mac is None:
            mac = SubElement(interface, "mac")
        mac.set("address", new_mac())
        remove_children(interface, "target")  # a tap device of a fixed name exists once
        for parameters in interface.iterfind("virtualport/parameters"):
            parameters.attrib.pop("interfaceid", None)


def _separate_character_devices(devices: Element, names: Mapping[str, str], warnings: list[str]) -> None:
    for device in character_devices(devices):
        for element in device.findall("source") + device.findall("log"):
            path = element.get("path") or element.get("file", "")
            if not path:
                continue
            renamed = _renamed(path, names)
            if is_log(element) and renamed != path:
                element.set("file", renamed)
                continue
            warnings.append(f"{device.tag}: {path} belongs to the original; the copy does without it")
            device.remove(element)
            _use_terminal(device, element)


def _use_terminal(device: Element, lost: Element) -> None:
    if lost.tag == "source" and device.tag != "channel":
        device.set("type", "pty")
        remove_children(device, "protocol")


def _renamed(path: str, names: Mapping[str, str]) -> str:
    directory, name = posixpath.split(path)
    for old, new in names.items():
        if old:
            name = name.replace(old, new)
    return f"{directory}/{name}"


def _separate_addresses(devices: Element, warnings: list[str]) -> None:
    for graphics in devices.findall("graphics"):
        if graphics.get("autoport") == "no" and graphics.get("port", "-1") != "-1":
            warnings.append(f"{graphics.get('type')}: port {graphics.get('port')} is the original's; now automatic")
            graphics.set("autoport", "yes")
            for attribute in ("port", "tlsPort", "websocket"):
                graphics.attrib.pop(attribute, None)
        sockets = [each for each in (graphics, *graphics.findall("listen")) if each.get("socket")]
        for element in sockets:
            del element.attrib["socket"]
        if sockets:
            warnings.append(f"{graphics.get('type')}: its socket is the original's; libvirt will choose another")
    for backend in devices.iterfind("tpm/backend"):
        remove_children(backend, "source")  # the copy's state lies where libvirt keeps that of its UUID
    for cid in devices.iterfind("vsock/cid"):
        cid.attrib.clear()
        cid.set("auto", "yes")


def _is_writable_floppy(disk: Element) -> bool:
    """qemu locks it: of two guests with one medium the second would not start."""
    return disk.get("device") == "floppy" and disk.find("source") is not None and disk.find("readonly") is None
