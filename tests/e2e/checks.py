"""The check that every test ends with: the domain is whole, whatever was done to the run."""

import xml.etree.ElementTree as ET
from pathlib import Path

from tests.e2e.site import Site
from tests.guests import Guest, virsh


def sources(guest: Guest, *, inactive: bool = False) -> dict[str, str]:
    """Disk target to path, as a definition has it."""
    root = guest.xml(inactive=inactive)
    found: dict[str, str] = {}
    for disk in root.iter("disk"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None and source is not None:
            found[target.get("dev", "")] = source.get("file") or source.get("dev") or ""
    return found


def assert_on_bases(site: Site, guest: Guest, bases: dict[str, str], directories: list[Path]) -> None:
    """On its bases, live and inactive; no job, no overlay file, nothing in the journal."""
    assert sources(guest) == bases
    assert sources(guest, inactive=True) == bases
    assert not _mirrors(guest.xml())
    for target in bases:
        if guest.state() == "running":
            assert not virsh(guest.uri, "blockjob", guest.uuid, target, "--info")
    assert not [path for directory in directories for path in directory.glob("*vmborg-*") if path.is_file()]
    assert not site.journal.entries().entries


def _mirrors(root: ET.Element) -> list[ET.Element]:
    return list(root.iter("mirror"))
