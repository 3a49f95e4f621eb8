"""What a restore must know of the host before it touches anything: the VM as it is now, and who uses which file."""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.errors import DomainBusy, DomainNotFound, RestoreError, TargetExists, VmborgError
from infra.hypervisor import images
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.disks import image_format
from infra.hypervisor.domain_xml import parse_domain
from infra.hypervisor.parsed import ParsedDomain
from infra.journal.store import Journal
from infra.model import DomainState
from tasks.restore.model import Host

SHUTDOWN_TIMEOUT_S = 120.0
"""How long a guest may take to shut down before its power plug is pulled."""

_POLL_S = 0.5

logger = logging.getLogger("vmborg.restore")


@dataclass(frozen=True, slots=True)
class Observed:
    """The host, and the domain of the archived UUID if there is one."""

    host: Host
    domain: Domain | None


def observe(hypervisor: Hypervisor, uuid: str) -> Observed:
    """Look at every domain's images. Raises HypervisorError."""
    domain = by_uuid(hypervisor, uuid)
    others: dict[str, str] = {}
    for name, other in named_domains(hypervisor):
        if other.uuid != uuid:
            others |= dict.fromkeys(_every_path(other), name)
    if domain is None:
        return Observed(Host(other_users=others), None)
    return Observed(
        Host(
            current_name=domain.name,
            current_xml=domain.inactive_xml(),
            own_paths=frozenset(_own_paths(domain)) - others.keys(),
            other_users=others,
        ),
        domain,
    )


def named_domains(hypervisor: Hypervisor) -> Iterator[tuple[str, Domain]]:
    """Every domain with its name; one that went away meanwhile is none."""
    for domain in hypervisor.domains():
        try:
            yield domain.name, domain
        except DomainNotFound:
            logger.debug("%s went away", domain)


def by_uuid(hypervisor: Hypervisor, uuid: str) -> Domain | None:
    """The domain of a UUID, None without one. Raises HypervisorError."""
    try:
        return hypervisor.by_uuid(uuid)
    except DomainNotFound:
        return None


def _definitions(domain: Domain) -> Iterator[ParsedDomain]:
    for xml in (domain.live_xml(), domain.inactive_xml()):
        if xml:
            yield parse_domain(xml, volume_path=domain.volume_path)


def _own_paths(domain: Domain) -> Iterator[str]:
    """What the domain itself writes to: its disks' own images and its firmware state, not what lies below them."""
    for definition in _definitions(domain):
        paths = [disk.image.path for disk in definition.disks if disk.image.local]
        if definition.nvram is not None and definition.nvram.local:
            paths.append(definition.nvram.path)
        for path in paths:
            yield from _with_real_path(path)


def _every_path(domain: Domain) -> Iterator[str]:
    """Every file the domain uses, also as backing file of a disk that is not running now."""
    try:
        definitions = list(_definitions(domain))
    except VmborgError as error:  # undefined meanwhile, or a volume that is gone: it cannot be asked about its files
        logger.warning("The files of %s are not known: %s", domain, error.brief)
        return
    for definition in definitions:
        for disk in definition.disks:
            for path in (disk.image.path, *(image.path for image in disk.backing)):
                yield from _with_real_path(path)
            if not disk.image.local:
                continue
            try:
                chain = images.walk(disk.image.path, image_format(disk))
            except VmborgError:
                continue  # its own images are broken or gone; nothing of ours can lie below what is not there
            for link in chain:
                yield from _with_real_path(link.image.path)


def _with_real_path(path: str) -> Iterator[str]:
    if path:
        yield path
        yield os.path.realpath(path)


_ANOTHER_NAME = "Choose another name for --as, or restore over it with --in-place if it is the same VM."


def require_name_free(hypervisor: Hypervisor, name: str, *, archived: str = "", remedy: str = _ANOTHER_NAME) -> None:
    """Raise TargetExists when a domain has this name. `archived` is the UUID of the VM that is to have it again."""
    for taken, domain in named_domains(hypervisor):
        if taken != name:
            continue
        mine = f"; the archive is of {archived}, another VM" if archived else ""
        raise TargetExists(
            f"There is a VM {name!r} already; nothing was changed.",
            evidence=f"its UUID is {domain.uuid}{mine}",
            remedy="Restore beside it with --as NEWNAME, or give that VM another name first: virsh domrename."
            if archived
            else remedy,
        )


def require_replaceable(domain: Domain, journal: Journal, *, stop: bool) -> None:
    """Raise when the domain cannot be put back now: DomainBusy (running, a job), RestoreError."""
    name = domain.name
    if journal.read(domain.uuid) is not None:
        raise RestoreError(
            f"A backup of {name!r} ended without putting it back on its own disks.",
            evidence=f"{journal.path(domain.uuid)} is still open",
            remedy=f"Run `vmborg recover {domain.uuid}` first.",
        )
    if not is_off(domain) and not stop:
        raise DomainBusy(
            f"The VM {name!r} is running; nothing was changed.",
            evidence=f"its state is {domain.state()}",
            remedy="Add --stop to shut it down for the restore, or restore beside it with --as NEWNAME.",
        )
    if job := domain.job():
        raise DomainBusy(
            f"The VM {name!r} is busy: {job}.", remedy="Wait until it is done (virsh domjobinfo), then try again."
        )
    if domain.managed_save_xml():
        raise RestoreError(
            f"The VM {name!r} has a saved memory image, which would be resumed on the restored disks and ruin them.",
            remedy=f"Drop it with `virsh managedsave-remove {domain.uuid}`, then restore.",
        )


def is_off(domain: Domain) -> bool:
    """Whether no guest runs. A transient domain that was shut off is gone."""
    try:
        return domain.state() is DomainState.SHUT_OFF
    except DomainNotFound:
        return True


def stop_domain(domain: Domain, *, timeout: float = SHUTDOWN_TIMEOUT_S) -> bool:
    """Shut the guest down; after `timeout` seconds pull its plug. True if it was running. Raises HypervisorError."""
    if is_off(domain):
        return False
    if domain.state() is DomainState.RUNNING:
        domain.shutdown()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if is_off(domain):
                return True
            time.sleep(_POLL_S)
        logger.warning("%s did not shut down within %g s; its plug is pulled.", domain, timeout)
    domain.destroy()
    return True


def existing_directories(paths: frozenset[str]) -> set[Path]:
    """The directories of these paths, as far as they are there."""
    return {parent for path in paths if (parent := Path(path).parent).is_dir()}


def missing_sources(xml: str, *, covered: set[str]) -> frozenset[str]:
    """Targets of disks that are not in the archive and whose file or device is not on this host."""
    return frozenset(
        disk.target
        for disk in parse_domain(xml).disks
        if disk.target not in covered and disk.image.path.startswith("/") and not Path(disk.image.path).exists()
    )
