"""Whether the host's confinement of guests is known to break a block commit. Pure.

virt-aa-helper writes a rule that denies writing to a read-only backing file, and the base of an overlay is one until
the commit: QEMU then says "Permission denied" and the guest stays on its overlay (libvirt work items 622 and 806,
fixed in 12.1.0; Ubuntu carries a patch, Launchpad 1554031).
"""

from dataclasses import dataclass

from defusedxml.ElementTree import fromstring

from infra.errors import HypervisorError

APPARMOR_FIXED = (12, 1, 0)
_PATCHED = {"ubuntu"}


@dataclass(frozen=True, slots=True)
class Confinement:
    """How libvirt confines the guests of a host."""

    models: tuple[str, ...]  # libvirt's names: apparmor, selinux, dac, none
    commit_denied: bool  # this combination is known to deny a block commit


def security_models(capabilities_xml: str) -> tuple[str, ...]:
    """The security models of `virsh capabilities`, without `none`. Raises HypervisorError for what is no XML."""
    try:
        root = fromstring(capabilities_xml, forbid_dtd=True)
    except (SyntaxError, ValueError) as error:
        raise HypervisorError("libvirt's capabilities cannot be read.", evidence=str(error)) from error
    found = (each.findtext("model") or "" for each in root.iterfind("host/secmodel"))
    return tuple(model for model in found if model not in {"", "none"})


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
