"""libvirt's checkpoints: since when a disk's dirty bitmap records what the guest writes to.

Ours are told by their names; those of other programs and of administrators are never touched. Each bitmap records by
itself, so any of them can go at any time (tried: libvirt 9.0).
"""

import logging
import re
from collections.abc import Collection
from xml.etree.ElementTree import Element, SubElement, tostring

from infra.errors import DomainStateChanged, HypervisorError
from infra.hypervisor.connection import Domain, Versions
from infra.model import DomainFacts

logger = logging.getLogger("vmborg.checkpoints")

_OURS = re.compile(r"vmborg-[0-9a-f]{8}")
OLDEST = (8, 0, 0)
"""The libvirt from which on checkpoints and external snapshots are relied on here, side by side; tried with 9.0."""


def unsupported(versions: Versions) -> str:
    """Why checkpoints are not used with this libvirt; "" when they are. Pure."""
    if versions.libvirt >= OLDEST:
        return ""
    return f"libvirt is {'.'.join(map(str, versions.libvirt))}; checkpoints beside snapshots are used from 8.0 on"


def checkpoint_name(run_id: str) -> str:
    """The name of the checkpoint that a run makes."""
    return f"vmborg-{run_id}"


def is_ours(name: str) -> bool:
    """Whether a checkpoint is one that vmborg made."""
    return bool(_OURS.fullmatch(name))


def jealous(names: Collection[str]) -> str:
    """Why no checkpoint of ours may stand beside these; "" when it may. Pure.

    virtnbdbackup ends with "Foreign checkpoint found" where there is one that it did not make (its checkpoint.py).
    """
    theirs = sorted(name for name in names if name.startswith("virtnbdbackup."))
    return f"virtnbdbackup has checkpoints ({theirs[-1]}), and refuses a VM with those of others" if theirs else ""


def checkpoint_xml(facts: DomainFacts, name: str, targets: Collection[str]) -> str:
    """The request: a bitmap for each disk of `targets`, `no` for every other one. Pure.

    Without the list libvirt wants one of each disk, and fails at the first that is not qcow2.
    """
    root = Element("domaincheckpoint")
    SubElement(root, "name").text = name
    disks = SubElement(root, "disks")
    for disk in facts.disks:
        SubElement(disks, "disk", name=disk.target, checkpoint="bitmap" if disk.target in targets else "no")
    return tostring(root, encoding="unicode")


def make_checkpoint(domain: Domain, facts: DomainFacts, *, name: str, targets: Collection[str]) -> bool:
    """Have the bitmaps begin now; whether they do. Without them the next backup reads everything, and that is all."""
    try:
        domain.checkpoint(checkpoint_xml(facts, name, targets))
    except DomainStateChanged:
        raise
    except HypervisorError as error:
        logger.warning("no checkpoint was made, so the next backup reads whole disks: %s", error.evidence)
        return False
    return True


def drop_checkpoints(domain: Domain, *, keep: Collection[str], only: str | None = None) -> tuple[str, ...]:
    """Remove our checkpoints but those of `keep` (only the one named, if `only` is); the names of those that are gone.

    That of a shut-off domain stays until it runs: libvirt takes bitmaps away through qemu alone. What cannot be removed
    is logged: it costs memory and no more.
    """
    gone: list[str] = []
    try:
        found = [name for name in domain.checkpoints() if is_ours(name) and name not in keep and only in {None, name}]
        if not found or not domain.live_xml():
            return ()
        for name in found:
            _drop(domain, name)
            gone.append(name)
    except HypervisorError as error:
        logger.warning("an old checkpoint was not removed: %s", error.evidence or error.brief)
    return tuple(gone)


def remove_checkpoints(domain: Domain) -> tuple[str, ...]:
    """Remove all of ours, whoever needs them; their names. Raises HypervisorError.

    Of a shut-off domain only what libvirt knows of them: the bitmaps stay in the images.
    """
    found = tuple(name for name in domain.checkpoints() if is_ours(name))
    running = bool(domain.live_xml())
    for name in found:
        if running:
            _drop(domain, name)
        else:
            domain.drop_checkpoint(name, metadata_only=True)
    return found


def _drop(domain: Domain, name: str) -> None:
    try:
        domain.drop_checkpoint(name)
    except DomainStateChanged:
        raise
    except HypervisorError as error:  # its bitmap is gone: the image was restored from a backup, or replaced
        logger.info("only the description of checkpoint %s is removed: %s", name, error.evidence)
        domain.drop_checkpoint(name, metadata_only=True)
