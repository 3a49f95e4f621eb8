"""Looking at a domain and the overlays of its journal entry: the facts that `recovery_plan` decides on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.errors import DomainNotFound
from infra.hypervisor import codes
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.domain import Domain
from infra.hypervisor.domain_xml import ParsedDisk, ParsedDomain, parse_domain
from infra.hypervisor.image_users import ImageUsers, image_users
from infra.hypervisor.overlay_file import base_newer, content
from infra.hypervisor.recovery_plan import Content, Job, Place, Seen, View, place
from infra.model import DomainState, JournalEntry, Overlay

_ON_OVERLAY = (Place.OVERLAY, Place.STRANGE)
_LEFT = (Content.EMPTY, Content.DATA, Content.UNFINISHED)


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a domain says of its disks."""

    domain: Domain | None = None  # None: libvirt does not know it
    live: ParsedDomain | None = None
    inactive: ParsedDomain | None = None
    saved: ParsedDomain | None = None


def read_definitions(hypervisor: Hypervisor, uuid: str) -> Definitions:
    """Every definition of the domain with this UUID, whatever its name is now."""
    try:
        domain = hypervisor.by_uuid(uuid)
        live = domain.live()
        inactive = domain.inactive() if domain.persistent() else None
        saved = domain.managed_save_xml() if inactive and not live else ""
        return Definitions(domain, live, inactive, parse_domain(saved) if saved else None)
    except DomainNotFound:
        return Definitions()


def overlay_places(domain: Domain, overlays: Sequence[Overlay]) -> dict[str, Place]:
    """Where the running guest has each overlay's disk. Raises HypervisorError."""
    chains = _chains(domain.live())
    return {overlay.target: place(chains, overlay, complete=True) for overlay in overlays}


def look(hypervisor: Hypervisor, entry: JournalEntry) -> View:
    """The domain as it is now. Raises HypervisorError, ImageError."""
    found = read_definitions(hypervisor, entry.uuid)
    seen = [_seen(found, overlay, entry) for overlay in entry.overlays]
    if any(each.content in _LEFT for each in seen):
        # Reading every domain of the host is for those that are about to lose a file.
        users = image_users(hypervisor)
        seen = [_with_users(each, users, entry) for each in seen]
    return View(phase=entry.phase, overlays=tuple(seen), resumable=entry.was_running and _stopped_by_io(found.domain))


def _seen(found: Definitions, overlay: Overlay, entry: JournalEntry) -> Seen:
    live = place(_chains(found.live), overlay, complete=True)
    asked = overlay.target in entry.pivoting and live is not Place.OVERLAY
    if live in _ON_OVERLAY:
        return Seen(overlay, live, Place.NONE, job=_job(found, overlay), pivot_asked=asked)
    resting = [place(_chains(each), overlay, complete=False) for each in (found.inactive, found.saved)]
    # A saved state that stands on the overlay keeps it as a definition does.
    inactive = next((each for each in (Place.STRANGE, Place.OVERLAY, Place.BASE) if each in resting), Place.NONE)
    return Seen(overlay, live, inactive, content=content(overlay), pivot_asked=asked)


def _with_users(seen: Seen, users: ImageUsers, entry: JournalEntry) -> Seen:
    return Seen(
        seen.overlay,
        seen.live,
        seen.inactive,
        seen.job,
        seen.content,
        pivot_asked=seen.pivot_asked,
        base_newer=seen.content is Content.DATA and base_newer(seen.overlay, entry.phase),
        users=users.of(seen.overlay.path),
        base_users=users.of(seen.overlay.base),
    )


def _chains(domain: ParsedDomain | None) -> Mapping[str, tuple[str, ...]]:
    if domain is None:
        return {}
    return {disk.target: (disk.image.path, *(image.path for image in disk.backing)) for disk in domain.disks}


def _job(found: Definitions, overlay: Overlay) -> Job:
    disk = found.live.disk(overlay.target) if found.live else None
    if disk is None or found.domain is None:
        return Job.NONE
    if disk.mirror is not None:
        return Job.OURS if _is_commit_into(disk, overlay.base) else Job.FOREIGN
    job = found.domain.block_job(overlay.target)
    if job is None:
        return Job.NONE
    return Job.OURS if job.kind == codes.ACTIVE_COMMIT else Job.FOREIGN


def _is_commit_into(disk: ParsedDisk, base: str) -> bool:
    mirror = disk.mirror
    return mirror is not None and mirror.job == "active-commit" and mirror.image.path == base


def _stopped_by_io(domain: Domain | None) -> bool:
    if domain is None:
        return False
    try:
        return domain.state() is DomainState.PAUSED and domain.state_reason() == codes.PAUSED_IOERROR
    except DomainNotFound:
        return False
