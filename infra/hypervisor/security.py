"""Whether the host's confinement of guests is known to break a block commit. Pure.

virt-aa-helper writes a rule that denies writing to a read-only backing file, and the base of an overlay is one until
the commit: QEMU then says "Permission denied" and the guest stays on its overlay (libvirt work items 622 and 806,
fixed in 12.1.0; Ubuntu carries a patch, Launchpad 1554031).
"""

import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from infra.errors import HypervisorError

APPARMOR_FIXED = (12, 1, 0)
_PATCHED = {"ubuntu"}
_OWNER = re.compile(r"\+(\d+):\+(\d+)")


@dataclass(frozen=True, slots=True)
class Confinement:
    """How libvirt confines the guests of a host."""

    models: tuple[str, ...]  # libvirt's names: apparmor, selinux, dac, none
    commit_denied: bool  # this combination is known to deny a block commit


def security_models(capabilities_xml: str) -> tuple[str, ...]:
    """The security models of `virsh capabilities`, without `none`. Raises HypervisorError for what is no XML."""
    found = (each.findtext("model") or "" for each in _models(capabilities_xml))
    return tuple(model for model in found if model not in {"", "none"})


def _models(capabilities_xml: str) -> list[Element]:
    try:
        return fromstring(capabilities_xml, forbid_dtd=True).findall("host/secmodel")
    except (SyntaxError, ValueError) as error:
        raise HypervisorError("libvirt's capabilities cannot be read.", evidence=str(error)) from error


def qemu_owner(capabilities_xml: str) -> tuple[int, int]:
    """User and group that qemu runs as, by number; root where libvirt does not say.

    libvirt's label of them is +UID:+GID (security_dac.c). Raises HypervisorError for what is no XML.
    """
    for model in _models(capabilities_xml):
        labels = {each.get("type", ""): (each.text or "").strip() for each in model.iterfind("baselabel")}
        label = labels.get("kvm") or labels.get("qemu") or ""
        found = _OWNER.fullmatch(label) if model.findtext("model") == "dac" else None
        if found:
            return int(found[1]), int(found[2])
    return 0, 0


def confinement(models: tuple[str, ...], libvirt: tuple[int, int, int], os_release: str) -> Confinement:
    """What these models mean with this libvirt; `os_release` is the text of /etc/os-release."""
    at_risk = "apparmor" in models and libvirt < APPARMOR_FIXED
    return Confinement(models, at_risk and _distribution(os_release) not in _PATCHED)


def _distribution(os_release: str) -> str:
    """The ID of os-release(5). A derivative (ID_LIKE=ubuntu) need not carry the patch, so it does not count."""
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "ID":
            return value.strip().strip("\"'").lower()
    return ""
