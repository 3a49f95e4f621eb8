"""What an archived definition must not bring along unasked. Pure.

Whoever can write into the repository could otherwise run programs on the hypervisor or read its files:
libvirt starts the emulator that a definition names, hands its host devices and directories to the guest, and
with dynamic ownership gives every file that a disk names to qemu. So every host path in the definition must
be explained by the restore itself, and what reaches outside by design (host devices, shared directories, raw
qemu arguments) is refused until it is allowed by name. A definition that stands on this host already was put
there by its administrator: what the archived one shares with it is no danger.
"""

import re

from defusedxml.ElementTree import fromstring

from infra.errors import UnsafeArchive
from infra.hypervisor.restore_dangers import READ_ONLY, Danger, TrustFacts, find_dangers
from infra.hypervisor.restore_xml import parse

ALLOWABLE = {
    "emulator": "an emulator that this host's libvirt does not offer",
    "commandline": "arguments handed to qemu past libvirt",
    "hostdev": "a device of the host",
    "filesystem": "a directory of the host",
    "disk": "a disk or medium that is not in the archive",
    "socket": "a socket or port of another program",
    "chardev": "a file, pipe or device of the host behind a serial port or the like",
    "firmware": "firmware from outside the packages' directories, or firmware state that is not restored",
    "seclabel": "a fixed or disabled security label",
    "script": "a program that libvirt runs as root for a network interface",
    "path": "any other path of the host",
}
"""What `--allow` takes, and what each means."""

_PACKAGED_EMULATOR = re.compile(r"/usr/(?:bin/(?:qemu-system-[a-z0-9_]+|kvm|qemu-kvm)|libexec/qemu-kvm)")


def emulators(capabilities_xml: str) -> frozenset[str]:
    """The emulators that the host's capabilities offer."""
    return frozenset(
        element.text for element in fromstring(capabilities_xml).iterfind("guest/arch//emulator") if element.text
    )


def packaged_emulators(xml: str) -> frozenset[str]:
    """The emulators of a definition that lie where distributions put them: for a host that cannot be asked."""
    named = (element.text or "" for element in parse(xml).iterfind("devices/emulator"))
    return frozenset(name for name in named if _PACKAGED_EMULATOR.fullmatch(name))


def check_trust(xml: str, facts: TrustFacts, *, allow: frozenset[str] = frozenset()) -> None:
    """Raise UnsafeArchive, naming everything in the definition that is neither vouched for nor allowed."""
    trusted = _trusted(facts)
    found = [danger for danger in find_dangers(xml, facts) if danger.kind not in allow and _key(danger) not in trusted]
    if not found:
        return
    kinds = sorted({danger.kind for danger in found})
    options = " ".join(f"--allow {kind}" for kind in kinds)
    leave = " A disk that is not in the archive is left out by --leave-out TARGET." if "disk" in kinds else ""
    raise UnsafeArchive(
        "The archived definition asks for what a restore must not do unasked.",
        evidence="\n".join(f"{danger} ({ALLOWABLE[danger.kind]})" for danger in dict.fromkeys(found)),
        remedy=f"If each of these is yours, add {options}.{leave} `restore --files-only` brings back the disks alone.",
    )


def _key(danger: Danger) -> tuple[str, str, str]:
    """What must be the same for a danger to be the same: a disk may have another target."""
    return danger.kind, "" if danger.kind == "disk" else danger.where, danger.value


def _trusted(facts: TrustFacts) -> set[tuple[str, str, str]]:
    if not facts.current_xml:
        return set()
    there = find_dangers(facts.current_xml, facts)
    if facts.copy:
        # Beside the original: what both only read. Its devices, directories and firmware state are its own.
        return {_key(danger) for danger in there if _is_read_only(danger)}
    # Who may write may read as well.
    reading = {_key(Danger(each.kind, each.where, each.value + READ_ONLY)) for each in there if each.kind == "disk"}
    return reading | {_key(danger) for danger in there}


def _is_read_only(danger: Danger) -> bool:
    return danger.kind == "emulator" or (danger.kind in ("disk", "firmware") and danger.value.endswith(READ_ONLY))
