"""Whether this host can try a VM: architecture, machine type, acceleration, memory. Pure but for `free_memory`."""

from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from infra.hypervisor.restore_xml import parse

_UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 10**3,
    "k": 2**10,
    "kib": 2**10,
    "mb": 10**6,
    "m": 2**20,
    "mib": 2**20,
    "gb": 10**9,
    "g": 2**30,
    "gib": 2**30,
    "tb": 10**12,
    "t": 2**40,
    "tib": 2**40,
}
_MEMINFO = Path("/proc/meminfo")
_KEPT = 256 * 1024**2
"""Bytes that the host keeps for itself: qemu takes some beside the guest's memory."""


def memory_of(xml: str) -> int:
    """Bytes of memory that a definition asks for. libvirt's unit without one is KiB (formatdomain, memory)."""
    memory = parse(xml).find("memory")
    if memory is None or not (memory.text or "").strip().isdecimal():
        return 0
    return int(memory.text or "0") * _UNITS.get(memory.get("unit", "KiB").lower(), 1024)


def free_memory(meminfo: Path = _MEMINFO) -> int:
    """Bytes that a new guest can have without anything being swapped out."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def no_room(memory: int, free: int) -> bool:
    """Whether a guest with so much memory would take what the others need."""
    return memory + _KEPT > free


def unsupported(xml: str, capabilities: str) -> str:
    """What of the definition this host's libvirt does not offer, "" if it offers all."""
    root = parse(xml)
    kind, system = root.get("type", ""), root.find("os/type")
    arch = system.get("arch", "") if system is not None else ""
    machine = system.get("machine", "") if system is not None else ""
    offered = {each.get("name", ""): each for each in fromstring(capabilities).iterfind("guest/arch")}
    if arch and arch not in offered:
        return f"it is of the architecture {arch}; this host has {', '.join(sorted(offered)) or 'none'}"
    found = offered.get(arch)
    if found is None:
        return ""
    if kind not in {each.get("type") for each in found.iterfind("domain")}:
        return f"it needs {kind}, which this host does not have"
    return "" if not machine or machine in _machines(found) else f"it is a machine {machine}, which this qemu is not"


def _machines(arch: Element) -> set[str]:
    found = [*arch.iterfind("machine"), *arch.iterfind("domain/machine")]
    return {name for each in found for name in (each.text or "", each.get("canonical", ""))}
