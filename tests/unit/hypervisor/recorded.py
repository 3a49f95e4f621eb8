"""Definitions as libvirt 9.0 wrote them, live and inactive."""

from pathlib import Path

from infra.hypervisor.domain_xml import parse_domain
from infra.hypervisor.parsed import ParsedDisk, ParsedDomain

FOLDER = Path(__file__).parents[1] / "fixtures" / "domains"
IMAGES = "/var/lib/libvirt/images/recorded"
NAMES = sorted(path.stem for path in FOLDER.glob("*.xml"))


def xml(name: str) -> str:
    """The text of a recorded definition."""
    return (FOLDER / f"{name}.xml").read_text(encoding="utf-8")


def domain(name: str) -> ParsedDomain:
    """A recorded definition, parsed."""
    return parse_domain(xml(name))


def disk(name: str, target: str) -> ParsedDisk:
    """One disk of a recorded definition."""
    found = domain(name).disk(target)
    assert found is not None, f"{name}.xml has no disk {target}"
    return found


def parsed_disk(inner: str, *, kind: str = "file", device: str = "disk") -> ParsedDisk:
    """A disk from the inside of its element."""
    text = (
        f"<domain><devices><disk type='{kind}' device='{device}'>{inner}<target dev='vda'/></disk></devices></domain>"
    )
    return parse_domain(text).disks[0]
