"""Looking at a domain and the overlays of its journal entry: the facts that `recovery_plan` decides on."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from infra.errors import DomainBusy, DomainNotFound, HypervisorError, HypervisorUnreachable
from infra.hypervisor import codes
from infra.hypervisor.commit_live import is_commit_into
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.domain import Domain
from infra.hypervisor.domain_xml import ParsedDomain, parse_domain
from infra.hypervisor.overlay_file import GONE, base_ahead, base_newer, content, equals_base, stamp
from infra.hypervisor.qemu_process import life_of
from infra.hypervisor.recovery_plan import Content, Job, Place, Seen, View, place
from infra.hypervisor.references import users_of
from infra.model import DomainState, JournalEntry, Overlay

logger = logging.getLogger("vmborg.recovery")

_ON_OVERLAY = (Place.OVERLAY, Place.STRANGE)
_LEFT = (Content.EMPTY, Content.DATA, Content.UNFINISHED)


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a domain says of its disks."""

    domain: Domain | None = None  # None: libvirt does not know it
    live: ParsedDomain | None = None
    inactive: ParsedDomain | None = None
    saved: ParsedDomain | None = None
    life: str = ""  # of the qemu that runs it


def read_definitions(hypervisor: Hypervisor, entry: JournalEntry) -> Definitions:
    """Every definition of the entry's domain, whatever its name is now.

    The snapshot that a dead run asked for may be under way still: it is waited for. Raises DomainBusy after 30 s.
    """
    try:
        domain = hypervisor.by_uuid(entry.uuid)
        _wait_turn(domain, entry.overlays[0].target)
        live = domain.live()
        inactive = domain.inactive() if domain.persistent() else None
        saved = domain.managed_save_xml() if inactive and not live else ""
        life = life_of(entry.uuid) if live else ""
        return Definitions(domain, live, inactive, parse_domain(saved) if saved else None, life)
    except DomainNotFound:
        return Definitions()


def _wait_turn(domain: Domain, target: str) -> None:
    """Wait until what is under way on the domain has ended.

    Reading a definition waits for nothing; asking for a block job waits for its turn (libvirt's qemu_driver.c,
    virDomainObjBeginJob), for half a minute at most. Raises DomainBusy then.
    """
    if domain.state() is DomainState.SHUT_OFF:
        return
    try:
        domain.block_job(target)
    except (DomainBusy, DomainNotFound, HypervisorUnreachable):
        raise
    except HypervisorError as error:  # it ended, or lacks this disk: its turn has come all the same
        logger.debug("%s", error)


def overlay_places(domain: Domain, overlays: Sequence[Overlay]) -> dict[str, Place]:
    """Where the running guest has each overlay's disk. Raises HypervisorError."""
    chains = _chains(domain.live())
    return {overlay.target: place(chains, overlay, complete=True) for overlay in overlays}


def look(hypervisor: Hypervisor, entry: JournalEntry, *, given_up: Collection[str] = (), seconds: float) -> View:
    """The domain as it is now. Raises HypervisorError, ImageError, CommandTimedOut.

    Files are not looked at while a disk waits for its live commit, except those of `given_up`, by disk target.
    `seconds` bound the comparison of two whole images, which only a run that died in a pivot makes necessary.
    """
    found = read_definitions(hypervisor, entry)
    seen = [_placed(found, overlay, entry) for overlay in entry.overlays]
    if not any(each.live is Place.OVERLAY and each.overlay.target not in given_up for each in seen):
        seen = [each if each.live in _ON_OVERLAY else _with_content(each, seconds) for each in seen]
    if any(each.content in _LEFT for each in seen):
        # Reading every domain of the host is for those that are about to lose a file.
        users = users_of(hypervisor, {path for each in entry.overlays for path in (each.path, each.base)})
        seen = [_with_users(each, users, entry) for each in seen]
    return View(phase=entry.phase, overlays=tuple(seen), resumable=entry.was_running and _stopped_by_io(found.domain))


def _with_content(seen: Seen, seconds: float) -> Seen:
    held = content(seen.overlay)
    if held is not Content.DATA or seen.settled or not seen.pivot_asked or seen.live is not Place.NONE:
        return replace(seen, content=held)
    if equals_base(seen.overlay, seconds=seconds):
        return replace(seen, content=Content.EMPTY)
    return replace(seen, content=held, base_ahead=base_ahead(seen.overlay))


def _placed(found: Definitions, overlay: Overlay, entry: JournalEntry) -> Seen:
    live = place(_chains(found.live), overlay, complete=True)
    asked = dict(entry.pivoting).get(overlay.target)
    pivoted = live is Place.BASE and found.life != "" and asked == found.life  # the same qemu that was asked
    resting = [place(_chains(each), overlay, complete=False) for each in (found.inactive, found.saved)]
    return Seen(
        overlay,
        live=live,
        # A saved state that stands on the overlay keeps it as a definition does.
        inactive=next((each for each in (Place.STRANGE, Place.OVERLAY, Place.BASE) if each in resting), Place.NONE),
        job=_job(found, overlay) if live is Place.OVERLAY else Job.NONE,
        settled=live is not Place.OVERLAY and (pivoted or _unchanged(overlay, entry)),
        pivot_asked=live is not Place.OVERLAY and asked is not None and not pivoted,
    )


def _unchanged(overlay: Overlay, entry: JournalEntry) -> bool:
    """Whether the overlay was settled, and is as it was then, or gone."""
    then = next((mark for target, *mark in entry.settled if target == overlay.target), None)
    return then is not None and stamp(overlay.path) in (tuple(then), GONE)


def _with_users(seen: Seen, users: Mapping[str, tuple[str, ...]], entry: JournalEntry) -> Seen:
    return replace(
        seen,
        base_newer=seen.content is Content.DATA and base_newer(seen.overlay, entry.phase),
        users=users[seen.overlay.path],
        base_users=users[seen.overlay.base],
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
        return Job.OURS if is_commit_into(disk.mirror, overlay.base) else Job.FOREIGN
    job = found.domain.block_job(overlay.target)
    if job is None:
        return Job.NONE
    return Job.OURS if job.kind == codes.ACTIVE_COMMIT else Job.FOREIGN


def _stopped_by_io(domain: Domain | None) -> bool:
    if domain is None:
        return False
    try:
        return domain.stopped_by_io()
    except DomainNotFound:
        return False
