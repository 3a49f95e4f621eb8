"""Everything in a definition that reaches outside the domain. Pure.

Two nets, one over the other. What begins with a slash is a path wherever it stands. And the places that libvirt's
schema (/usr/share/libvirt/schemas) has for files, devices and sockets count whatever they hold: libvirt hands a
relative path to qemu as it is, whose working directory is `/`.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from infra.hypervisor.device_xml import describe_source, disk_target, is_channel_socket, is_log, is_removable
from infra.hypervisor.restore_xml import parse
from infra.hypervisor.system_paths import is_system_path

READ_ONLY = " (read-only)"
"""At the end of a danger's value: the guest can only read it."""

PATH_TEXTS = {
    *("kernel", "initrd", "root", "dtb", "loader", "nvram", "init", "initdir", "bootloader"),
    *("table", "path", "database", "block", "char"),
}
"""Elements whose text is a path."""

PATH_ATTRIBUTES = {
    *("path", "file", "socket", "template", "rendernode", "logFile", "tap", "vhost", "tty", "evdev", "xauth"),
    *("table", "database"),
}
"""Attributes that are a path in every element. `dev` and `dir` are one in <source> alone."""

_FIRMWARE_DIRS = ("/usr/share/", "/usr/lib/")
_ENTROPY = {"/dev/urandom", "/dev/random", "/dev/hwrng"}
_NETWORK_NODES = {"/dev/net/tun", "/dev/vhost-net"}
_MEDIA = (".iso", ".flp", ".vfd")
# A partition is a control group, which begins with a slash as well; every definition of a transient domain has one.
_FREE_TEXT = {"name", "uuid", "title", "description", "metadata", "cmdline", "sysinfo", "seclabel", "partition"}
_HOST_DEVICES = {
    "interface": {"hostdev", "vdpa"},
    "disk": {"nvme", "vhostvdpa"},
    "input": {"evdev", "passthrough"},
    "tpm": {"passthrough"},
    "smartcard": {"host", "host-certificates"},
    "audio": {"alsa", "oss", "pulseaudio", "jack", "pipewire", "coreaudio"},
}
_SOCKET_TYPES = {
    "interface": {"vhostuser", "client", "server", "mcast", "udp"},
    "disk": {"vhostuser"},
    "graphics": {"dbus"},
}
_CHARACTER_DEVICES = ("serial", "console", "parallel", "channel", "smartcard", "redirdev", "rng", "tpm")
_INSIDE = ("alias", "address", "boot", "target")  # of a device: what only its guest sees


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """What this host and this restore vouch for."""

    emulators: frozenset[str]
    placed: frozenset[str]  # paths that this restore writes, or has found to hold what is archived
    current_xml: str = ""  # the definition of the same UUID on this host; "" when there is none
    copy: bool = False


@dataclass(frozen=True, slots=True)
class Danger:
    """One thing in a definition that reaches outside."""

    kind: str  # a key of restore_trust.ALLOWABLE
    where: str  # disk vda, interface, os
    value: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.value}" if self.value else f"{self.kind}: {self.where}"


def find_dangers(xml: str, facts: TrustFacts) -> tuple[Danger, ...]:
    """Everything in the definition that this restore and this host's packages do not explain."""
    root = parse(xml)
    found = [*_foreign(root), *_labels(root)]
    for child in root:
        if child.tag == "devices":
            for device in child:
                found.extend(_of_device(device, facts))
        elif child.tag == "os":
            found.extend(_of_os(child, facts))
        elif child.tag not in _FREE_TEXT:
            found.extend(_paths("path", child, known=facts.placed))
    found.extend(
        Danger("path", "sysinfo", entry.get("file", ""))
        for sysinfo in root.iterfind("sysinfo")
        for entry in sysinfo.iter()
        if entry.get("file")
    )
    return tuple(found)


def _foreign(element: Element) -> Iterator[Danger]:
    """Elements of a namespace: qemu's are arguments; of others libvirt, which compares local names, reads some too."""
    for child in element:
        if child.tag == "metadata":
            continue
        if child.tag.startswith("{"):
            values = " ".join(filter(None, (each.get("value") or each.get("name") for each in child.iter())))
            yield Danger("commandline", child.tag.rpartition("}")[2], values)
        else:
            yield from _foreign(child)


def _labels(root: Element) -> Iterator[Danger]:
    for label in root.iter("seclabel"):
        kind = label.get("type", "dynamic")
        fixed = " ".join(filter(None, (label.findtext("label"), label.findtext("baselabel"))))
        if kind in ("none", "static") or fixed:
            yield Danger("seclabel", label.get("model", "default"), f"{kind} {fixed}".strip())


def _of_os(system: Element, facts: TrustFacts) -> Iterator[Danger]:
    for element in system:
        if element.tag == "loader":
            yield from _of_loader(element, facts)
        elif element.tag == "nvram":
            yield from _of_nvram(element, facts)
        elif element.tag not in _FREE_TEXT:
            yield from _paths("path", element, known=facts.placed)


def _of_loader(loader: Element, facts: TrustFacts) -> Iterator[Danger]:
    flash = loader.get("type") == "pflash"
    writable = loader.get("readonly") == "no" or (flash and loader.get("readonly") != "yes")
    for path in _host_paths(loader):
        if path in facts.placed or (not writable and _is_below(path, _FIRMWARE_DIRS)):
            continue
        yield Danger("firmware", "loader", path if writable else f"{path}{READ_ONLY}")


def _of_nvram(nvram: Element, facts: TrustFacts) -> Iterator[Danger]:
    """The guest writes to it, so only what is restored will do; a template is only read."""
    if nvram.get("type", "file") not in ("file", "block"):
        yield Danger("firmware", "nvram", _summary(nvram))
    for path in _host_paths(nvram):
        template = path == nvram.get("template")
        if path in facts.placed or (template and _is_below(path, _FIRMWARE_DIRS)):
            continue
        yield Danger("firmware", "nvram template" if template else "nvram", f"{path}{READ_ONLY}" if template else path)


def _of_device(device: Element, facts: TrustFacts) -> Iterator[Danger]:
    kinds = {each.get("type", "") for each in (device, *device.iterfind("backend"))} | {device.get("mode", "")}
    if device.tag == "emulator":
        if (device.text or "").strip() not in facts.emulators:
            yield Danger("emulator", "devices", (device.text or "").strip())
    elif device.tag == "hostdev" or kinds & _HOST_DEVICES.get(device.tag, set()):
        yield Danger("hostdev", device.tag, _summary(device))
    elif device.tag == "filesystem":
        yield Danger("filesystem", device.tag, _summary(device))
    elif device.tag == "shmem" or kinds & _SOCKET_TYPES.get(device.tag, set()):
        yield Danger("socket", device.tag, _summary(device))
    elif device.tag == "disk":
        yield from _of_disk(device, facts)
    elif device.tag == "interface":
        yield from _of_interface(device, facts)
    elif device.tag in _CHARACTER_DEVICES:
        yield from _of_character_device(device, facts)
    else:
        yield from _paths("path", device, known=facts.placed)


def _of_interface(interface: Element, facts: TrustFacts) -> Iterator[Danger]:
    scripts = [child for child in interface if child.tag in ("script", "downscript")]
    for script in scripts:
        yield Danger("script", "interface", script.get("path", ""))
        interface.remove(script)
    for element in (*interface.iterfind("source"), *interface.iterfind("target")):
        # The whole network card of the host, or somebody's tap device, which is used as it stands.
        if element.get("mode") == "passthrough" or element.get("managed") == "no":
            yield Danger("hostdev", "interface", f"{element.tag} {element.get('dev', '')}")
    yield from _paths("path", interface, known=facts.placed | _NETWORK_NODES)


def _of_character_device(device: Element, facts: TrustFacts) -> Iterator[Danger]:
    """Serial ports, channels and what else speaks through one of libvirt's character devices."""
    known = facts.placed | _ENTROPY if device.tag == "rng" else facts.placed
    backends = [device, *device.iterfind("backend")]
    if {"tcp", "udp"} & {each.get("type") for each in backends}:
        yield Danger("socket", device.tag, _summary(device))
    unix = "unix" in {each.get("type") for each in (*backends, *device.iter("source"))}
    for element in device.iter():
        if is_log(element) or is_channel_socket(device, element):
            continue
        # Without a mode libvirt connects.
        joins = element.tag == "source" and unix and element.get("mode", "connect") == "connect"
        kind = "socket" if joins else "path" if device.tag == "tpm" else "chardev"
        yield from (Danger(kind, device.tag, path) for path in _paths_of(element, device) if path not in known)


def _of_disk(disk: Element, facts: TrustFacts) -> Iterator[Danger]:
    where = f"disk {disk_target(disk)}"
    if disk.get("rawio") == "yes" or disk.get("sgio") == "unfiltered":
        yield Danger("hostdev", where, "raw access to a device of the host")
    local = disk.get("type", "file") in ("file", "block")
    source = describe_source(disk) if local or disk.get("type") == "dir" else _summary(disk)
    limit = READ_ONLY if _is_read_only(disk) else ""
    if source and not (local and source in facts.placed) and not _is_medium(disk, source):
        yield Danger("disk", where, f"{source}{limit}")
    for path in _host_paths(disk):
        if path not in facts.placed and path != source:
            yield Danger("disk", where, path)


def _is_read_only(disk: Element) -> bool:
    """libvirt takes every CD-ROM as read-only; a floppy can be written unless it says so."""
    return disk.get("device") == "cdrom" or disk.find("readonly") is not None


def _is_medium(disk: Element, source: str) -> bool:
    """An installation medium outside the system's directories, which the guest can only read."""
    return (
        is_removable(disk)
        and _is_read_only(disk)
        and disk.get("type", "file") == "file"
        and source.lower().endswith(_MEDIA)
        and not is_system_path(source)
    )


def _paths(kind: str, element: Element, *, known: frozenset[str]) -> Iterator[Danger]:
    yield from (Danger(kind, element.tag, path) for path in _host_paths(element) if path not in known)


def _host_paths(device: Element) -> Iterator[str]:
    """Every attribute and text of `device` and below it that names something on the host."""
    for each in device.iter():
        yield from _paths_of(each, device)


def _paths_of(element: Element, device: Element) -> Iterator[str]:
    if element.tag in _FREE_TEXT:
        return
    for attribute, value in element.attrib.items():
        if value.startswith("/") or (value and _is_path(attribute, element, device)):
            yield value
    text = (element.text or "").strip()
    is_entropy = element.tag == "backend" and device.tag == "rng"
    if text.startswith("/") or (text and (element.tag in PATH_TEXTS or is_entropy)):
        yield text


def _is_path(attribute: str, element: Element, device: Element) -> bool:
    if attribute in PATH_ATTRIBUTES:
        return True
    if attribute in ("dev", "dir"):
        return element.tag == "source" and device.tag != "interface"  # there it names a network card
    # qemu opens a keyboard map of any name that it finds as a file (qemu, util/datadir.c).
    return attribute == "keymap" and not element.get(attribute, "").replace("-", "").isalnum()


def _is_below(path: str, directories: tuple[str, ...]) -> bool:
    return posixpath.normpath(path) == path and path.startswith(directories)


def _summary(device: Element) -> str:
    """All that tells one device from another, what only its guest sees left out."""
    words: list[str] = []
    for child in device:
        for each in () if child.tag in _INSIDE else child.iter():
            attributes = " ".join(f"{key}={value}" for key, value in sorted(each.attrib.items()))
            words.append(" ".join(filter(None, (each.tag, attributes, (each.text or "").strip()))))
    own = f"{device.get('type', '')} {device.get('mode', '')}".strip()
    return f"{own} {', '.join(words)}".strip()
