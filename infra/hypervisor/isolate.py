"""A throw-away definition: the same machine with nothing of the host but the files of one folder. Pure.

Built by naming what may stay, so that a device of a kind that is not known yet is left out. `require_isolated` looks at
the outcome anew and with other rules (those of a restore's trust, and its own), so that a mistake here starts nothing.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement, tostring

from infra.hypervisor.device_xml import describe_source, disk_target, is_removable, remove_children
from infra.hypervisor.restore_xml import parse, random_mac

AGENT = "org.qemu.guest_agent.0"
FIRMWARE_DIRS = ("/usr/share/", "/usr/lib/")
ENTROPY = "/dev/urandom"

_ROOT = {
    *("name", "uuid", "genid", "memory", "currentMemory", "maxMemory", "vcpu", "vcpus", "iothreads", "iothreadids"),
    *("os", "sysinfo", "features", "cpu", "clock", "on_poweroff", "on_reboot", "on_crash", "pm", "devices"),
}
_OS = {
    *("type", "loader", "nvram", "kernel", "initrd", "cmdline", "dtb"),
    *("boot", "bootmenu", "bios", "smbios", "firmware"),
}
_DISK = {"driver", "source", "target", "serial", "wwn", "vendor", "product", "boot", "address", "readonly", "blockio"}
_DRIVER = {"name", "type", "discard", "detect_zeroes", "queues"}
_PLAIN = {"controller", "memballoon", "panic", "iommu", "hub"}
_NOT_MISSED = {"emulator", "serial", "console", "input", "graphics", "sound", "audio", "interface"}
_INPUTS = {"mouse", "keyboard", "tablet"}
_SCREENS = {"vga", "cirrus", "bochs", "virtio", "ramfb"}  # qxl wants SPICE; the others are drawn without a client


@dataclass(frozen=True, slots=True)
class Isolation:
    """Where the throw-away domain lives."""

    name: str
    uuid: str
    folder: str  # every file that it uses lies below it
    network: str = ""  # libvirt's network without a way out; "" for no network card


@dataclass(frozen=True, slots=True)
class Isolated:
    """The definition, and what it is without."""

    xml: str
    left_out: tuple[str, ...] = field(default=())


def isolate(xml: str, to: Isolation, *, new_mac: Callable[[], str] = random_mac) -> Isolated:
    """The definition for `virsh create`. `xml` names files below `to.folder` already (see --files-only).

    Raises UnsafeArchive and DomainXmlError (see restore_xml.parse).
    """
    root = parse(xml)
    _keep(root, _ROOT)
    root.attrib.pop("id", None)
    _identify(root, to)
    _confine_os(root, to)
    left: list[str] = []
    devices = root.findall("devices")[0]
    kept = [made for device in devices if (made := _device(device, to, left)) is not None]
    for device in list(devices):
        devices.remove(device)
    devices.extend(kept)
    _add_screen(root, devices)
    _add_console(devices, to)
    if to.network:
        card = SubElement(devices, "interface", type="network")
        SubElement(card, "mac", address=new_mac())
        SubElement(card, "source", network=to.network)
        SubElement(card, "model", type="virtio")
    return Isolated(tostring(root, encoding="unicode"), tuple(left))


def console_path(folder: str) -> str:
    """Where the first serial port writes."""
    return f"{folder}/console.log"


def _keep(parent: Element, tags: set[str]) -> None:
    for child in list(parent):
        if child.tag not in tags:
            parent.remove(child)


def _identify(root: Element, to: Isolation) -> None:
    for tag, value in (("name", to.name), ("uuid", to.uuid)):
        remove_children(root, tag)
        SubElement(root, tag).text = value
    for sysinfo in root.findall("sysinfo"):
        if sysinfo.get("type") != "smbios":
            root.remove(sysinfo)  # fwcfg reads files
    for entry in root.iterfind("sysinfo/system/entry[@name='uuid']"):
        entry.text = to.uuid
    for genid in root.findall("genid"):
        genid.text = None  # libvirt makes one: the guest learns that its time went back
    for tag, value in (("on_poweroff", "destroy"), ("on_crash", "destroy")):
        remove_children(root, tag)
        SubElement(root, tag).text = value
    for cell in root.iterfind("cpu/numa/cell"):
        cell.attrib.pop("memAccess", None)


def _confine_os(root: Element, to: Isolation) -> None:
    system = root.find("os")
    if system is None:
        return
    _keep(system, _OS)
    loader, nvram = system.find("loader"), system.find("nvram")
    needs = system.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash")
    if nvram is None and needs:
        nvram = SubElement(system, "nvram")
    if nvram is None:
        return
    source = nvram.find("source")
    path = (source.get("file", "") if source is not None else nvram.text) or ""
    template = nvram.get("template", "")
    nvram.clear()
    if template.startswith(FIRMWARE_DIRS):
        nvram.set("template", template)
    # Else libvirt makes one under the domain's name where it keeps them, and nobody deletes it.
    nvram.text = path if path.startswith(f"{to.folder}/") else f"{to.folder}/nvram.fd"


def _device(device: Element, to: Isolation, left: list[str]) -> Element | None:
    made: Element | None = None
    if device.tag == "disk":
        made = _disk(device, to, left)
    elif device.tag == "channel":
        made = _agent_channel(device)
    elif device.tag == "video":
        made = _screen(device)
    elif device.tag in _PLAIN:
        made = _plain(device)
    elif device.tag == "input" and device.get("type") in _INPUTS:
        made = _only(device, "address")
    elif device.tag == "watchdog":
        made = _only(device, "address", action="reset")
    elif device.tag == "rng":
        made = _only(device, "address")
        SubElement(made, "backend", model="random").text = ENTROPY
    elif device.tag not in _NOT_MISSED:
        left.append(_called(device))
    return made


def _called(device: Element) -> str:
    kind = device.get("type") or device.get("model") or ""
    return f"{device.tag} {kind}".strip()


def _plain(device: Element) -> Element:
    made = deepcopy(device)
    for driver in made.findall("driver"):
        driver.attrib.pop("iothread", None)
    return made


def _only(device: Element, *children: str, **attributes: str) -> Element:
    made = Element(device.tag, {**{key: value for key, value in device.attrib.items() if key != "tty"}, **attributes})
    made.extend([deepcopy(child) for child in device if child.tag in children])
    return made


def _disk(device: Element, to: Isolation, left: list[str]) -> Element | None:
    made = deepcopy(device)
    _keep(made, _DISK)
    if is_removable(made):
        remove_children(made, "source", "driver")
        made.set("type", "file")
        return made
    source = made.find("source")
    path = source.get("file", "") if source is not None and made.get("type") == "file" else ""
    if not path.startswith(f"{to.folder}/") or device.get("device", "disk") != "disk":
        left.append(f"disk {disk_target(device)} ({describe_source(device) or 'empty'})")
        return None
    for element in made.findall("source"):
        element.clear()
        element.set("file", path)
    driver = made.find("driver")
    kept = {key: value for key, value in driver.attrib.items() if key in _DRIVER} if driver is not None else {}
    remove_children(made, "driver")
    # It is thrown away: nothing has to reach the disk, and a flush would only cost the guests that stay.
    SubElement(made, "driver", {**kept, "name": "qemu", "cache": "unsafe"})
    return made


def _agent_channel(device: Element) -> Element | None:
    target = device.find("target")
    if target is None or target.get("type") != "virtio" or target.get("name") != AGENT:
        return None
    made = Element("channel", type="unix")
    SubElement(made, "target", type="virtio", name=AGENT)
    made.extend([deepcopy(child) for child in device if child.tag == "address"])
    return made


def _screen(device: Element) -> Element | None:
    model = device.find("model")
    kind = model.get("type", "") if model is not None else ""
    if kind in ("none", ""):
        return None
    made = Element("video")
    SubElement(made, "model", type=kind if kind in _SCREENS else "vga", heads="1")
    if kind in _SCREENS:
        made.extend([deepcopy(child) for child in device if child.tag == "address"])
    return made


def _add_screen(root: Element, devices: Element) -> None:
    screens = devices.findall("video")
    for screen in screens[1:]:
        devices.remove(screen)
    if not screens:
        kind = root.find("os/type")
        pc = kind is None or kind.get("arch", "x86_64") in ("x86_64", "i686")
        SubElement(SubElement(devices, "video"), "model", type="vga" if pc else "virtio", heads="1")


def _add_console(devices: Element, to: Isolation) -> None:
    serial = SubElement(devices, "serial", type="file")
    SubElement(serial, "source", path=console_path(to.folder), append="off")
    SubElement(serial, "target", port="0")
