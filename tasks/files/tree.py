"""The guest's file systems, mounted inside the appliance: as the guest mounts them, or each by the name of its disk."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.errors_views import GuestEncrypted, GuestPathError
from infra.guestfs.session import Appliance

_DEVICE = re.compile(r"/dev/sd([a-z]+)(\d*)")
_NO_FILES = {"swap", "unknown", ""}
_ENCRYPTED = {"crypto_LUKS", "BitLocker"}


@dataclass(frozen=True, slots=True)
class Tree:
    """What is mounted: kind of file system by where it is."""

    places: Mapping[str, str]
    is_guests: bool  # mounted as the guest does it
    warnings: tuple[str, ...] = ()


def mount_tree(appliance: Appliance, targets: Sequence[str], *, by_disk: bool) -> Tree:
    """Mount everything read-only. `targets` are the disks' names, in the order of the appliance's drives.

    Raises GuestEncrypted, GuestPathError when there is nothing to mount, ApplianceFailed.
    """
    found = _pairs(appliance.do("list-filesystems"))
    if not by_disk and (system := appliance.do("inspect-os").split()):
        return _as_guest(appliance, system[0], found)
    return _by_disk(appliance, targets, found)


def _as_guest(appliance: Appliance, root: str, found: Mapping[str, str]) -> Tree:
    places: dict[str, str] = {}
    warnings: list[str] = []
    wanted = _pairs(appliance.do("inspect-get-mountpoints", root))
    for place, device in sorted(wanted.items(), key=lambda each: len(each[0])):
        try:
            appliance.do("mount-ro", device, place)
        except GuestPathError as error:
            if place == "/":
                raise
            warnings.append(f"{place} is not shown: {error.evidence}")
            continue
        places[place] = found.get(device, "")
    return Tree(places, is_guests=True, warnings=tuple(warnings))


def _by_disk(appliance: Appliance, targets: Sequence[str], found: Mapping[str, str]) -> Tree:
    places: dict[str, str] = {}
    warnings: list[str] = []
    for device, kind in found.items():
        if kind in _NO_FILES:
            continue
        place = f"/{file_system_name(device, targets)}"
        if kind in _ENCRYPTED:
            warnings.append(f"{place[1:]} is encrypted ({kind})")
            continue
        try:
            appliance.do("mkmountpoint", place)
            appliance.do("mount-ro", device, place)
        except GuestPathError as error:
            warnings.append(f"{place[1:]} is not shown: {error.evidence}")
            continue
        places[place] = kind
    if not places:
        raise _nothing(found, warnings)
    return Tree(places, is_guests=False, warnings=tuple(warnings))


def _nothing(found: Mapping[str, str], warnings: Sequence[str]) -> GuestPathError | GuestEncrypted:
    evidence = "\n".join(warnings) or "\n".join(f"{device}: {kind}" for device, kind in found.items())
    if _ENCRYPTED.intersection(found.values()):
        return GuestEncrypted(
            "The guest's file systems are encrypted inside the guest.",
            evidence=evidence,
            remedy="Restore it beside the original (`vmborg restore VM --as NAME`) and open them there.",
        )
    return GuestPathError(
        "No file system was found on the archive's disks.",
        evidence=evidence or "the appliance found none",
        remedy="Look at the disks themselves: vmborg restore VM --files-only --to DIR.",
    )


def _pairs(text: str) -> dict[str, str]:
    return dict(line.rsplit(": ", 1) for line in text.splitlines() if ": " in line)


def file_system_name(device: str, targets: Sequence[str]) -> str:
    """A file system's name: that of the disk in the VM's definition and the partition (vda1), or vg0-data.

    >>> file_system_name("/dev/sdb2", ["vda", "vdb"])
    'vdb2'
    >>> file_system_name("/dev/vg0/data", ["vda"])
    'vg0-data'
    """
    name = device.removeprefix("btrfsvol:")
    found = _DEVICE.match(name)
    if found is not None:
        letters = found[1]
        number = 0
        for letter in letters:
            number = number * 26 + ord(letter) - ord("a") + 1
        name = f"{targets[number - 1]}{found[2]}{name[found.end() :]}"
    return name.removeprefix("/dev/").removeprefix("mapper/").replace("/", "-")
