"""Whether a throw-away definition really touches nothing but its own folder: asked before it is started. Pure."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from infra.errors_drills import NotIsolated
from infra.hypervisor.isolate import AGENT, ENTROPY, FIRMWARE_DIRS, Isolation
from infra.hypervisor.restore_dangers import TrustFacts, find_dangers
from infra.hypervisor.restore_xml import parse

_DEVICES = {
    *("disk", "controller", "serial", "channel", "input", "video", "memballoon", "rng", "panic", "watchdog"),
    *("iommu", "hub", "interface"),
}
_FREE_TEXT = {"name", "uuid", "genid", "cmdline", "entry"}


def require_isolated(xml: str, to: Isolation, original: str) -> None:
    """Raise NotIsolated, naming everything in `xml` that reaches outside of `to.folder` or belongs to `original`."""
    root = parse(xml)
    wrong = [
        *_identity(root, to, parse(original)),
        *_devices(root, to),
        *(f"{where}: {path}" for where, path in _paths(root) if not _is_own(where, path, to)),
    ]
    placed = frozenset(path for _, path in _paths(root) if path.startswith(f"{to.folder}/"))
    wrong += map(str, find_dangers(xml, TrustFacts(frozenset(), placed)))
    if wrong:
        raise NotIsolated(
            "The throw-away VM would not be alone; it was not started.",
            evidence="\n".join(dict.fromkeys(wrong)),
            remedy="This is a mistake of vmborg's: report it with the archive's vmborg/domain.xml.",
        )


def _identity(root: Element, to: Isolation, original: Element) -> Iterator[str]:
    for tag, wanted in (("name", to.name), ("uuid", to.uuid)):
        if root.findtext(tag) != wanted or wanted == original.findtext(tag):
            yield f"{tag}: {root.findtext(tag)}"
    there = {mac.get("address", "").lower() for mac in original.iterfind("devices/interface/mac")}
    for mac in root.iterfind("devices/interface/mac"):
        if mac.get("address", "").lower() in there:
            yield f"the original's MAC address {mac.get('address')}"


def _devices(root: Element, to: Isolation) -> Iterator[str]:
    for child in root:
        if child.tag.startswith("{") or child.tag in ("seclabel", "memoryBacking", "launchSecurity", "bootloader"):
            yield child.tag
    for device in root.findall("devices")[0]:
        problem = "" if device.tag in _DEVICES else "no device of a throw-away VM"
        match device.tag:
            case "disk":
                problem = "" if device.get("type") == "file" else f"of type {device.get('type')}"
            case "serial":
                problem = "" if device.get("type") == "file" else f"of type {device.get('type')}"
            case "channel":
                problem = _channel(device)
            case "interface":
                source = device.find("source")
                own = bool(to.network) and source is not None and source.get("network") == to.network
                problem = "" if own and device.get("type") == "network" else "a network that is not the drill's own"
            case _:
                pass
        if problem:
            yield f"{device.tag}: {problem}"


def _channel(device: Element) -> str:
    target = device.find("target")
    if target is None or target.get("name") != AGENT or device.get("type") != "unix":
        return "not that of the guest agent"
    return "a socket of somebody's" if device.find("source") is not None else ""


def _paths(root: Element) -> Iterator[tuple[str, str]]:
    """Everything that begins with a slash, wherever it stands."""
    for element in root.iter():
        text = (element.text or "").strip()
        if text.startswith("/") and element.tag not in _FREE_TEXT:
            yield element.tag, text
        for name, value in element.attrib.items():
            if value.startswith("/") and element.tag not in _FREE_TEXT:
                yield f"{element.tag}/{name}", value


def _is_own(where: str, path: str, to: Isolation) -> bool:
    if "/../" in f"{path}/":
        return False
    if path.startswith(f"{to.folder}/"):
        return True
    if where in ("loader", "nvram/template"):
        return path.startswith(FIRMWARE_DIRS)
    return where == "backend" and path == ENTROPY
