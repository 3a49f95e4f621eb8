"""The definition of a test guest."""

import uuid as uuids
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import defusedxml.ElementTree as SafeET

from tests.guests.acceleration import accelerator
from tests.guests.build import Boot
from tests.guests.waiting import GuestError

# Each saves a part of a second at boot under emulation; no_timer_check spares a check that fails on a busy host.
_CMDLINE = (
    "console=ttyS0 quiet panic=1 nokaslr mitigations=off no_timer_check tsc=reliable cryptomgr.notests"
    " random.trust_cpu=on lsm="
)
_OVMF = (("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd"))


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk of a test guest. `path` None is an empty CD-ROM or floppy drive."""

    target: str
    path: Path | None
    format: str = "qcow2"
    kind: str = "file"
    bus: str = "virtio"
    readonly: bool = False
    shareable: bool = False
    device: str = "disk"
    discard: bool = False


def domain_xml(
    name: str,
    *,
    boot: Boot,
    disks: list[DiskSpec],
    memory_mib: int = 192,
    uuid: str | None = None,
    agent: bool = True,
    uefi: bool = False,
    tpm: bool = False,
    extra_devices: str = "",
    serial_log: Path | None = None,
    machine: str = "q35",
    network: bool = False,
    cmdline: str = "",
    nvram: Path | None = None,
) -> str:
    """The XML of a guest that boots `boot` directly.

    `agent=False` leaves out both the channel and, in the guest, the agent; `cmdline` is added to the kernel's.
    Without `nvram` libvirt chooses the NVRAM's file. The virtio disks' serials are their targets: the guest mounts
    by them, so /data/vdb is vdb however the buses are numbered.
    """
    domain = ET.Element("domain", type=accelerator())
    _text(domain, "name", name)
    _text(domain, "uuid", uuid or str(uuids.uuid4()))
    _text(domain, "memory", str(memory_mib), unit="MiB")
    _text(domain, "vcpu", "1")
    arguments = " ".join(filter(None, [_CMDLINE, "" if agent else "vmborg.noagent", cmdline]))
    _add_os(domain, boot, machine=machine, cmdline=arguments, uefi=uefi, nvram=nvram)
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    if accelerator() == "kvm":
        ET.SubElement(domain, "cpu", mode="host-passthrough")
    devices = ET.SubElement(domain, "devices")
    for disk in disks:
        _add_disk(devices, disk, machine=machine)
    if any(disk.bus == "scsi" for disk in disks):
        # libvirt's own choice is an LSI adapter that cloud kernels have no driver for.
        ET.SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    _add_devices(devices, agent=agent, tpm=tpm, network=network)
    _add_serial(devices, serial_log)
    devices.extend(SafeET.fromstring(f"<devices>{extra_devices}</devices>"))
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _add_os(domain: ET.Element, boot: Boot, *, machine: str, cmdline: str, uefi: bool, nvram: Path | None) -> None:
    element = ET.SubElement(domain, "os")
    _text(element, "type", "hvm", arch="x86_64", machine=machine)
    if uefi:
        code, template = _firmware()
        _text(element, "loader", str(code), readonly="yes", type="pflash")
        _text(element, "nvram", str(nvram) if nvram else "", template=str(template))
    _text(element, "kernel", str(boot.kernel))
    _text(element, "initrd", str(boot.initrd))
    _text(element, "cmdline", cmdline)


def _firmware() -> tuple[Path, Path]:
    folder = Path("/usr/share/OVMF")
    for code, template in _OVMF:
        if (folder / code).is_file():
            return folder / code, folder / template
    raise GuestError("no UEFI firmware in /usr/share/OVMF; the package is called ovmf")


def _add_disk(devices: ET.Element, disk: DiskSpec, *, machine: str) -> None:
    element = ET.SubElement(devices, "disk", type=disk.kind, device=disk.device)
    driver = ET.SubElement(element, "driver", name="qemu", type=disk.format)
    if disk.discard:
        driver.set("discard", "unmap")
    if disk.path is not None:
        ET.SubElement(element, "source", {"dev" if disk.kind == "block" else "file": str(disk.path)})
    ET.SubElement(element, "target", dev=disk.target, bus=_bus(disk, machine))
    if disk.readonly or disk.device == "cdrom":
        ET.SubElement(element, "readonly")
    if disk.shareable:
        ET.SubElement(element, "shareable")
    if disk.device == "disk":
        _text(element, "serial", disk.target)


def _bus(disk: DiskSpec, machine: str) -> str:
    if disk.device == "cdrom" and disk.bus == "virtio":
        return "sata" if "q35" in machine else "ide"
    return "fdc" if disk.device == "floppy" else disk.bus


def _add_devices(devices: ET.Element, *, agent: bool, tpm: bool, network: bool) -> None:
    # Neither USB nor balloon: each device costs time at boot.
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    if agent:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if network:
        interface = ET.SubElement(devices, "interface", type="user")
        ET.SubElement(interface, "model", type="virtio")
    if tpm:
        element = ET.SubElement(devices, "tpm", model="tpm-tis")
        ET.SubElement(element, "backend", type="emulator", version="2.0")


def _add_serial(devices: ET.Element, log: Path | None) -> None:
    serial = ET.SubElement(devices, "serial", type="file" if log else "pty")
    if log:
        # Each start writes the file anew: what is in it belongs to the current boot.
        ET.SubElement(serial, "source", path=str(log), append="off")
    ET.SubElement(serial, "target", port="0")
