"""Which VMs are tried, in which order, and which cannot be on this host. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from infra.config.drills import DrillsConfig
from tasks.catalogue import VmArchive
from tasks.drills.model import Candidate
from tasks.drills.proofs import NONE, Proof
from tasks.units import size

_NEVER = datetime.min.replace(tzinfo=UTC)


def candidates(archives: Iterable[VmArchive], host: str) -> list[Candidate]:
    """Every VM whose newest finished archive was made by this hypervisor, by name."""
    newest: dict[str, VmArchive] = {}
    for archive in archives:
        if archive.finished and (archive.uuid not in newest or archive.time > newest[archive.uuid].time):
            newest[archive.uuid] = archive
    mine = [each for each in newest.values() if each.hypervisor == host]
    return sorted((as_candidate(each) for each in mine), key=lambda each: (each.vm, each.uuid))


def as_candidate(archive: VmArchive) -> Candidate:
    """An archive as something to be tried."""
    return Candidate(archive.vm, archive.uuid, archive.archive, archive.repository, archive.size)


def in_order(found: Iterable[Candidate], proofs: Mapping[str, Proof]) -> list[Candidate]:
    """Those never tried first, then those whose last drill is the oldest.

    One whose drill failed waits for its turn like one that was proven: it would take every night's time else.
    """

    def age(each: Candidate) -> tuple[datetime, str, str]:
        proof = proofs.get(each.uuid, NONE)
        return proof.tried or proof.proven or _NEVER, each.vm, each.uuid

    return sorted(found, key=age)


def is_due(proof: Proof, *, now: datetime, every: timedelta) -> bool:
    """Whether a schedule tries it: after half of the time for which a proof is good, so that one night may be lost."""
    return proof.tried is None or now - proof.tried >= every / 2


def fits_time(proof: Proof, *, spent: float, budget: float) -> bool:
    """Whether there is time for it: it is expected to take as long as the last time. Seconds."""
    return spent < budget and (spent == 0 or spent + proof.seconds <= budget)


def too_large(candidate: Candidate, proof: Proof, drills: DrillsConfig) -> str:
    """Why it is not tried on this host, "" if it is. The guest's memory is known after its first drill."""
    bytes_needed = proof.size or candidate.size
    if drills.space is not None and bytes_needed > drills.space:
        return f"its disks are {size(bytes_needed)}, drills.space is {size(drills.space)}"
    return too_much_memory(proof.memory, drills)


def too_much_memory(memory: int, drills: DrillsConfig) -> str:
    """Why a VM with so many bytes of memory is not tried, "" if it is."""
    return f"it has {size(memory)} of memory, drills.memory is {size(drills.memory)}" if memory > drills.memory else ""


def is_overdue(proof: Proof, *, first: datetime | None, now: datetime, every: timedelta) -> bool:
    """Whether a VM was not proven for too long; one never proven counts from its first archive on."""
    since = proof.proven or first
    return since is not None and now - since > every
