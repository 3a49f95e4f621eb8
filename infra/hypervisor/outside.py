"""Storage that reaches a guest past libvirt's <disk>: no snapshot includes it, and no list of disks shows it. Pure.

Found are drives on qemu's command line, SCSI devices handed through, persistent memory, and firmware state that is no
file of this host. A PCI or USB device handed through may be storage as well, but nothing in a definition tells.
"""

from collections.abc import Collection, Iterator
from xml.etree.ElementTree import Element

from infra.hypervisor.domain_xml import parse_root
from infra.hypervisor.parsed import ParsedDomain
from infra.model import Disk, Verdict

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_DRIVE_OPTIONS = {"-drive", "-blockdev", "-hda", "-hdb", "-hdc", "-hdd", "-mtdblock", "-pflash", "-sd", "-usbdevice"}
_PERSISTENT_MEMORY = {"nvdimm", "virtio-pmem"}


def outside_targets(xml: str) -> dict[str, str]:
    """A made-up target for each piece of such storage, and why it is not covered. Raises DomainXmlError."""
    root = parse_root(xml)
    return {target: reason for find in (_drives, _scsi, _memory, _firmware) for target, reason in find(root)}


def _drives(root: Element) -> Iterator[tuple[str, str]]:
    arguments = [arg.get("value", "") for arg in root.iterfind(f"{_QEMU}commandline/{_QEMU}arg")]
    drives = [argument for argument in arguments if argument in _DRIVE_OPTIONS]
    if drives:
        yield "qemu:commandline", f"{' '.join(drives)} on qemu's command line; libvirt knows nothing of this storage"


def _scsi(root: Element) -> Iterator[tuple[str, str]]:
    for device in root.iterfind("devices/hostdev[@type='scsi']"):
        if device.find("readonly") is not None:
            continue
        adapter, address = device.find("source/adapter"), device.find("source/address")
        if adapter is None or address is None:
            iscsi = device.find("source[@protocol='iscsi']")
            name = "scsi" if iscsi is None else iscsi.get("name", "iscsi")
        else:
            name = ":".join([adapter.get("name", ""), *(address.get(key, "0") for key in ("bus", "target", "unit"))])
        yield name, "a SCSI device of the host, handed through; libvirt takes no snapshot of it"


def _memory(root: Element) -> Iterator[tuple[str, str]]:
    memories = [each for each in root.iterfind("devices/memory") if each.get("model") in _PERSISTENT_MEMORY]
    for number, memory in enumerate(memories):
        path = (memory.findtext("source/path") or "").strip()
        yield f"{memory.get('model')}{number}", f"persistent memory kept in {path}; libvirt takes no snapshot of it"


def _firmware(root: Element) -> Iterator[tuple[str, str]]:
    if root.find("os/nvram[@type]") is not None and root.find("os/nvram[@type='file']") is None:
        yield "nvram", "UEFI variables that are no file of this host"
    if root.find("devices/tpm/backend[@type='external']") is not None:
        yield "tpm", "a TPM emulator that was not started by libvirt; its state is not known here"
    if root.find("devices/tpm/backend/source[@type='file']") is not None:
        yield "tpm", "a TPM that keeps its state in one file; only state folders are stored"


def outside_disks(
    xml: str, *, live: ParsedDomain | None, inactive: ParsedDomain, exclude: Collection[str]
) -> tuple[Disk, ...]:
    """What a backup cannot reach: the above, and disks that only the next start attaches. Raises DomainXmlError."""
    found = [_disk(target, reason, exclude=exclude) for target, reason in outside_targets(xml).items()]
    if live is None:
        return tuple(found)
    for disk in inactive.disks:
        if live.disk(disk.target) is None and disk.device in {"disk", "lun"} and not disk.readonly:
            reason = "attached at the next start only; restart the guest to have it covered"
            found.append(_disk(disk.target, reason, exclude=exclude, source=disk.image.path, device=disk.device))
    return tuple(found)


def _disk(target: str, reason: str, *, exclude: Collection[str], source: str = "", device: str = "disk") -> Disk:
    excluded = target in exclude
    return Disk(
        target=target,
        device=device,
        verdict=Verdict.EXCLUDED if excluded else Verdict.UNCOVERED,
        reason="excluded by the configuration (exclude_disks)" if excluded else reason,
        source=source,
    )
