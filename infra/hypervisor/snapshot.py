"""The one libvirt snapshot of a backup: external, disk-only, atomic, no metadata, every disk named.

A disk that is not named is not left out: libvirt gives it an overlay under a name of its own, CD-ROMs and read-only
disks too (tried: libvirt 9.0).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from infra.errors import DomainStateChanged, HypervisorError, SnapshotFailed
from infra.hypervisor.domain import Domain
from infra.hypervisor.parsed import ParsedDomain
from infra.hypervisor.recovery_plan import Place
from infra.hypervisor.recovery_view import overlay_places
from infra.model import DomainFacts, Image, ImageKind, Overlay

_NAME_MAX = 255
"""Bytes of a file name on the file systems of Linux."""


def overlay_path(base: Image, target: str, *, run_id: str, overlay_dir: Path) -> str:
    """Where the overlay of a disk goes: beside its base file, or into `overlay_dir` for a device.

    The name says whose it is, and no two disks of a run nor two runs share one. It ends in .qcow2 because AppArmor's
    rules of libvirt go by the ending.
    """
    path = Path(base.path)
    ending = f".{target}.vmborg-{run_id}.qcow2"
    stem = path.name.encode()[: _NAME_MAX - len(ending.encode())].decode(errors="ignore")
    folder = path.parent if base.kind is ImageKind.FILE else overlay_dir
    return str(folder / f"{stem}{ending}")


def snapshot_xml(facts: DomainFacts, overlays: Sequence[Overlay], *, run_id: str) -> str:
    """The request: an explicit overlay for each disk of `overlays`, `no` for every other one.

    libvirt names the overlay of a disk that is plugged in at this very moment BASE.NAME: that tells whose it is.
    """
    paths = {overlay.target: overlay.path for overlay in overlays}
    return request_xml(f"vmborg-{run_id}.qcow2", [disk.target for disk in facts.disks], paths)


def request_xml(name: str, targets: Iterable[str], paths: Mapping[str, str]) -> str:
    """The request for new qcow2 overlays at `paths`, by disk target; `targets` are all disks of the domain."""
    root = Element("domainsnapshot")
    SubElement(root, "name").text = name
    disks = SubElement(root, "disks")
    for target in targets:
        if target not in paths:
            SubElement(disks, "disk", name=target, snapshot="no")
            continue
        element = SubElement(disks, "disk", name=target, snapshot="external", type="file")
        SubElement(element, "driver", type="qcow2")
        SubElement(element, "source", file=paths[target])
    return tostring(root, encoding="unicode")


def require_free_paths(overlays: Sequence[Overlay]) -> None:
    """Raise SnapshotFailed if something is at an overlay's path.

    For before the journal is written too: what the journal names is ours to remove.
    """
    taken = [overlay.path for overlay in overlays if _exists(Path(overlay.path))]
    if taken:
        raise SnapshotFailed(
            f"There is a file where an overlay would be: {taken[0]}.",
            evidence="\n".join(taken),
            remedy="It is not ours and was left alone. Look what it is, move it away, then back up again.",
        )


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def take_snapshot(
    domain: Domain, facts: DomainFacts, overlays: Sequence[Overlay], *, run_id: str
) -> tuple[Overlay, ...]:
    """Move the covered disks to their overlays, all at one instant, and see that they are there.

    Returns the overlays that libvirt made on its own, for disks that were plugged in at the last moment: they are to be
    journalled and put back as ours.

    Raises DomainStateChanged, nothing was done then, when its disks are no longer those of `facts`; SnapshotFailed. Its
    caller puts the domain back in any case: where the connection broke, nobody knows what libvirt did.
    """
    covered = {disk.target: disk.base.path for disk in facts.covered}
    if covered != {overlay.target: overlay.base for overlay in overlays}:
        raise SnapshotFailed(
            f"The overlays of {facts.name!r} are not those of its disks.",
            evidence=f"disks {covered}, overlays {[overlay.target for overlay in overlays]}",
        )
    require_free_paths(overlays)
    _require_same_disks(domain, facts)
    try:
        domain.snapshot(snapshot_xml(facts, overlays, run_id=run_id))
    except HypervisorError as error:
        raise SnapshotFailed(
            f"libvirt took no snapshot of {facts.name!r}.",
            evidence=error.evidence,
            remedy=_remedy(error),
            code=error.code,
        ) from error
    others = strays(domain.live(), overlays, run_id=run_id)
    if others:
        return others
    places = overlay_places(domain, overlays)
    wrong = [target for target, place in places.items() if place is not Place.OVERLAY]
    if wrong:
        raise SnapshotFailed(
            f"After the snapshot not every disk of {facts.name!r} is on its overlay.",
            evidence=", ".join(f"{target} is on: {places[target]}" for target in wrong),
            remedy="Somebody else works on this domain's disks; the domain is put back. Back up again.",
        )
    return ()


def _require_same_disks(domain: Domain, facts: DomainFacts) -> None:
    """Minutes may have passed since `facts` were read: a disk may have come, gone or got another medium."""
    live = domain.live()
    now = {disk.target: disk.image.path for disk in live.disks} if live else {}
    then = {disk.target: disk.source for disk in facts.disks}
    changed = sorted(target for target in now.keys() | then.keys() if now.get(target) != then.get(target))
    if changed:
        raise DomainStateChanged(
            f"The disks of {facts.name!r} changed while its backup was prepared: {', '.join(changed)}.",
            evidence=f"before: {then}\nnow: {now}",
        )


def strays(live: ParsedDomain | None, overlays: Sequence[Overlay], *, run_id: str) -> tuple[Overlay, ...]:
    """The overlays that libvirt made and named after the snapshot. Pure."""
    ours = {overlay.path for overlay in overlays}
    return tuple(
        Overlay(
            target=disk.target,
            base=disk.backing[0].path,
            base_kind=ImageKind.BLOCK if disk.backing[0].kind == "block" else ImageKind.FILE,
            base_format=disk.backing[0].format,
            path=disk.image.path,
        )
        for disk in (live.disks if live else ())
        if disk.image.path.endswith(f".vmborg-{run_id}.qcow2") and disk.image.path not in ours and disk.backing
    )


def _remedy(error: HypervisorError) -> str:
    known = {
        "No space left": "Free space where the overlays go, beside the images and in hypervisor.overlay_dir.",
        "Permission denied": "A security module (AppArmor, SELinux) or the folder's mode keeps qemu from creating the "
        "overlay; look for DENIED in the kernel's log.",
        "already exists": "Move the file away that is there; it is not ours.",
    }
    return next((remedy for text, remedy in known.items() if text in error.evidence), error.remedy)
