"""What an archived definition must not bring along unasked. Pure.

Whoever can write into the repository could otherwise run programs on the hypervisor or read its files:
libvirt starts the emulator that a definition names, hands its host devices and directories to the guest, and
with dynamic ownership gives every file that a disk names to qemu. So every host path in the definition must
be explained by the restore itself, and what reaches outside by design (host devices, shared directories, raw
qemu arguments) is refused until it is allowed by name. A definition that stands on this host already was put
there by its administrator: what the archived one shares with it is no danger.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from infra.errors import UnsafeArchive
from infra.hypervisor.restore_xml import LIBVIRT_DIRS, describe_source, disk_target, is_removable, parse

ALLOWABLE = {
    "emulator": "an emulator that this host's libvirt does not offer",
    "commandline": "arguments handed to qemu past libvirt",
    "hostdev": "a device of the host",
    "filesystem": "a directory of the host",
    "disk": "a disk or medium that is not in the archive",
    "socket": "a socket of another program",
    "chardev": "a file, pipe or device of the host behind a serial port or the like",
    "firmware": "firmware from outside the packages' directories",
    "seclabel": "a fixed or disabled security label",
    "script": "a program that libvirt runs as root for a network interface",
    "path": "any other path of the host",
}
"""What `--allow` takes, and what each means."""

_FIRMWARE_DIRS = ("/usr/share/", "/usr/lib/")
_HARMLESS = {"/dev/urandom", "/dev/random", "/dev/hwrng", "/dev/net/tun", "/dev/vhost-net"}
_MEDIA = (".iso", ".flp", ".vfd")
# A partition is a control group, which begins with a slash as well; every definition of a transient domain has one.
_FREE_TEXT = {"name", "uuid", "title", "description", "metadata", "cmdline", "sysinfo", "seclabel", "partition"}
_HOST_DEVICE_TYPES = {
    "hostdev",
    "vdpa",
    "nvme",
    "vhostvdpa",
    "passthrough",
    "evdev",
    "host",
    "host-certificates",
}
_PATH_ATTRIBUTES = {"path", "file", "socket", "template", "table", "rendernode", "database", "logFile"}
_CHARACTER_DEVICES = ("serial", "console", "parallel", "channel", "smartcard", "redirdev", "rng")
_COPY_TRUSTS = {"emulator", "firmware"}

_SYSTEM_DIRS = (
    *(
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/proc",
        "/root",
        "/run",
        "/sbin",
    ),
    *("/sys", "/usr", "/var/cache", "/var/log", "/var/mail", "/var/run", "/var/spool"),
    *("/var/lib/dbus", "/var/lib/dpkg", "/var/lib/polkit-1", "/var/lib/systemd"),
)


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """What this host and this restore vouch for."""

    emulators: frozenset[str]
    placed: frozenset[str]  # paths that this restore writes
    current_xml: str = ""  # the definition of the same UUID on this host; "" when there is none
    copy: bool = False


@dataclass(frozen=True, slots=True)
class Danger:
    """One thing in a definition that reaches outside."""

    kind: str  # a key of ALLOWABLE
    where: str  # disk vda, interface, os
    value: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.value}" if self.value else f"{self.kind}: {self.where}"


def emulators(capabilities_xml: str) -> frozenset[str]:
    """The emulators that the host's capabilities offer."""
    return frozenset(
        element.text for element in fromstring(capabilities_xml).iterfind("guest/arch//emulator") if element.text
    )


def check_trust(xml: str, facts: TrustFacts, *, allow: frozenset[str] = frozenset()) -> None:
    """Raise UnsafeArchive, naming everything in the definition that is neither vouched for nor allowed."""
    trusted = _trusted(facts)
    found = [
        danger
        for danger in find_dangers(xml, facts)
        if danger.kind not in allow and (danger.kind, danger.value) not in trusted
    ]
    if not found:
        return
    kinds = sorted({danger.kind for danger in found})
    options = " ".join(f"--allow {kind}" for kind in kinds)
    raise UnsafeArchive(
        "The archived definition asks for what a restore must not do unasked.",
        evidence="\n".join(f"{danger} ({ALLOWABLE[danger.kind]})" for danger in dict.fromkeys(found)),
        remedy=f"If each of these is yours, add {options}; --files-only brings back the disks alone.",
    )


def _trusted(facts: TrustFacts) -> set[tuple[str, str]]:
    if not facts.current_xml:
        return set()
    there = find_dangers(facts.current_xml, facts)
    if not facts.copy:
        return {(danger.kind, danger.value) for danger in there}
    # A copy beside the original must not share its devices and directories; media and firmware are only read.
    shared = {(danger.kind, danger.value) for danger in there if danger.kind in _COPY_TRUSTS}
    return shared | {("disk", path) for path in _read_only_sources(facts.current_xml)}


def _read_only_sources(xml: str) -> Iterator[str]:
    for disk in parse(xml).iterfind("devices/disk"):
        if disk.find("readonly") is not None or disk.get("device") == "cdrom":
            yield describe_source(disk)


def find_dangers(xml: str, facts: TrustFacts) -> tuple[Danger, ...]:
    """Everything in the definition that this restore and this host's packages do not explain."""
    root = parse(xml)
    found: list[Danger] = []
    for child in root:
        if child.tag.startswith("{"):
            values = " ".join(filter(None, (each.get("value") or each.get("name") for each in child.iter())))
            found.append(Danger("commandline", child.tag.rpartition("}")[2], values))
        elif child.tag == "devices":
            for device in child:
                found.extend(_of_device(device, facts))
        elif child.tag == "os":
            found.extend(_of_os(child, facts))
        elif child.tag not in _FREE_TEXT:
            found.extend(_paths("path", child, facts))
    found.extend(_labels(root))
    found.extend(
        Danger("path", "sysinfo", entry.get("file", ""))
        for entry in root.iterfind("sysinfo/entry")
        if entry.get("file")
    )
    return tuple(found)


def _labels(root: Element) -> Iterator[Danger]:
    for label in root.iter("seclabel"):
        kind = label.get("type", "dynamic")
        if kind in ("none", "static") or label.findtext("label"):
            yield Danger("seclabel", label.get("model", "default"), f"{kind} {label.findtext('label', '')}".strip())


def _of_os(system: Element, facts: TrustFacts) -> Iterator[Danger]:
    for element in system:
        if element.tag in ("loader", "nvram"):
            yield from _paths("firmware", element, facts, safe=_FIRMWARE_DIRS)
        elif element.tag not in _FREE_TEXT:
            yield from _paths("path", element, facts)


def _of_device(device: Element, facts: TrustFacts) -> Iterator[Danger]:
    kinds = {
        device.get("type", ""),
        device.get("mode", ""),
        *(b.get("type", "") for b in device.iterfind("backend")),
    }
    if device.tag == "emulator":
        if (device.text or "").strip() not in facts.emulators:
            yield Danger("emulator", "devices", (device.text or "").strip())
    elif device.tag == "hostdev" or kinds & _HOST_DEVICE_TYPES:
        yield Danger("hostdev", device.tag, _summary(device))
    elif device.tag == "filesystem":
        yield Danger("filesystem", device.tag, _summary(device))
    elif device.tag == "disk":
        yield from _of_disk(device, facts)
    elif "vhostuser" in kinds or device.tag == "shmem":
        yield Danger("socket", device.tag, _summary(device))
    elif device.tag == "interface":
        yield from _of_interface(device, facts)
    elif device.tag in _CHARACTER_DEVICES:
        yield from _paths("chardev", device, facts, safe=LIBVIRT_DIRS)
    else:
        yield from _paths("path", device, facts, safe=LIBVIRT_DIRS)


def _of_interface(interface: Element, facts: TrustFacts) -> Iterator[Danger]:
    scripts = [child for child in interface if child.tag in ("script", "downscript")]
    for script in scripts:
        yield Danger("script", "interface", script.get("path", ""))
        interface.remove(script)
    yield from _paths("path", interface, facts, safe=LIBVIRT_DIRS)


def _of_disk(disk: Element, facts: TrustFacts) -> Iterator[Danger]:
    where = f"disk {disk_target(disk)}"
    source = describe_source(disk)
    if disk.get("type") == "vhostuser":
        yield Danger("socket", where, _summary(disk))
    elif source and source not in facts.placed and not _is_medium(disk, source):
        yield Danger("disk", where, source)
    else:
        for path in _host_paths(disk):
            if path not in facts.placed and path != source:
                yield Danger("disk", where, path)


def _is_medium(disk: Element, source: str) -> bool:
    """An installation medium outside the system's directories, which the guest can only read."""
    return (
        is_removable(disk)
        and disk.find("source[@file]") is not None
        and source.lower().endswith(_MEDIA)
        and not is_system_path(source)
    )


def _paths(kind: str, element: Element, facts: TrustFacts, *, safe: tuple[str, ...] = ()) -> Iterator[Danger]:
    for path in _host_paths(element):
        normal = posixpath.normpath(path) == path
        if path in facts.placed or path in _HARMLESS or (normal and path.startswith(safe or ("\0",))):
            continue
        yield Danger(kind, element.tag, path)


def _host_paths(element: Element) -> Iterator[str]:
    """Every attribute and text below `element` that names something on the host."""
    for each in element.iter():
        if each.tag in _FREE_TEXT:
            continue
        for attribute, value in each.attrib.items():
            if value.startswith("/") or (attribute in _PATH_ATTRIBUTES and value):
                yield value
        text = (each.text or "").strip()
        if text.startswith("/"):
            yield text


def _summary(device: Element) -> str:
    """The attributes that tell one device from another, addresses inside the guest left out."""
    words = [
        f"{each.tag} {' '.join(f'{key}={value}' for key, value in sorted(each.attrib.items()))}".strip()
        for each in device.iter()
        if each.tag in ("source", "address", "backend", "device", "vendor", "product", "server", "target")
        and not (each.tag == "address" and each in list(device))
    ]
    return f"{device.get('type', '')} {device.get('mode', '')} {', '.join(words)}".strip()


def is_system_path(path: str) -> bool:
    """Whether a path lies where the host keeps itself: a restore writes nothing there unasked."""
    normal = posixpath.normpath(path)
    if normal != path or not path.startswith("/"):
        return True
    hidden = any(part.startswith(".") and part != ".local" for part in path.split("/"))
    return hidden or any(path == each or path.startswith(f"{each}/") for each in _SYSTEM_DIRS)
