"""What the devices of a definition are, as far as a restore asks. Pure."""

import posixpath
from xml.etree.ElementTree import Element

CHANNEL_DIRS = ("/var/lib/libvirt/qemu/channel/", "/run/libvirt/qemu/channel/", "/var/run/libvirt/qemu/channel/")
"""Where libvirt makes the sockets of virtio channels. Beside these lie monitors, and libvirt's own sockets."""

LOG_DIR = "/var/log/libvirt/qemu/"

_CHARACTER_DEVICES = ("serial", "console", "parallel", "channel")


def is_channel_socket(device: Element, source: Element) -> bool:
    """Whether this is the socket of a virtio channel, where libvirt makes it itself when none is given."""
    target = device.find("target")
    virtio = device.tag == "channel" and target is not None and target.get("type") == "virtio"
    path = source.get("path", "")
    made = source.tag == "source" and source.get("mode") == "bind" and path.startswith(CHANNEL_DIRS)
    return virtio and made and device.get("type") == "unix" and posixpath.normpath(path) == path


def is_log(element: Element) -> bool:
    """Whether this is a character device's log where libvirt keeps those of its domains."""
    path = element.get("file", "")
    return element.tag == "log" and path.startswith(LOG_DIR) and posixpath.normpath(path) == path


def character_devices(devices: Element) -> list[Element]:
    """Serial ports, consoles and channels."""
    return [device for device in devices if device.tag in _CHARACTER_DEVICES]


def remove_children(parent: Element, *tags: str) -> None:
    """Take these out of an element."""
    for tag in tags:
        for child in parent.findall(tag):
            parent.remove(child)


def disk_target(disk: Element) -> str:
    """The disk's name inside the domain: vda."""
    target = disk.find("target")
    return target.get("dev", "") if target is not None else ""


def is_removable(disk: Element) -> bool:
    """Whether a medium can be taken out and the drive stay."""
    return disk.get("device") in ("cdrom", "floppy")


def describe_source(disk: Element) -> str:
    """Path, URL-like name or pool/volume of a disk's source; "" for an empty drive."""
    source = disk.find("source")
    if source is None:
        return ""
    for attribute in ("file", "dev", "dir"):
        if source.get(attribute):
            return source.get(attribute, "")
    parts = [
        disk.get("type", ""),
        *(source.get(key, "") for key in ("protocol", "pool", "volume", "name", "path")),
    ]
    return "/".join(part for part in parts if part)
