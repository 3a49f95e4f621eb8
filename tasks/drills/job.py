"""Which VMs a run tries, and the run over them: budgets, proofs."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.config.models import Config
from infra.errors import ArchiveNotFound, VmborgError
from tasks.catalogue import VmArchive, read_catalogue, select
from tasks.drills.model import Candidate, Outcome, Verdict
from tasks.drills.plan import as_candidate, candidates, fits_time, in_order, is_due, too_large
from tasks.drills.proofs import Proof, read_proof, remember_outcome


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be tried, in order; `named` ones are tried whatever the budgets say."""

    candidates: Sequence[Candidate]
    proofs: dict[str, Proof]
    named: bool = False


def choose(config: Config, vms: Sequence[str], *, everything: bool, now: datetime) -> Job:
    """The VMs named; all of them; or those that a schedule is to try now.

    Raises ArchiveNotFound for a name without a finished archive, the repository's error when none could be read.
    """
    catalogue = read_catalogue(config)
    if catalogue.failures and not catalogue.archives:
        raise next(iter(catalogue.failures.values()))
    if vms:
        found = [_newest(select(catalogue.archives, vm), vm) for vm in dict.fromkeys(vms)]
    else:
        every = candidates(catalogue.archives, config.hypervisor.name)
        found = [each for each in every if not config.drills.of(each.vm).skip and config.is_excluded(each.vm) is None]
    proofs = {each.uuid: read_proof(config.state, each.uuid) for each in found}
    if not vms and not everything:
        found = [each for each in found if is_due(proofs[each.uuid], now=now, every=config.drills.every)]
    return Job(found if vms else in_order(found, proofs), proofs, bool(vms))


def _newest(archives: Sequence[VmArchive], vm: str) -> Candidate:
    finished = [each for each in archives if each.finished]
    if not finished:
        raise ArchiveNotFound(
            f"There is no finished archive of a VM {vm!r}.", evidence="nothing to try", remedy="See `vmborg list`."
        )
    return as_candidate(finished[-1])


def work_off(config: Config, job: Job, drill: Callable[[Candidate], Outcome]) -> Iterator[Outcome]:
    """Try one after the other, and remember each; what the budgets do not allow is not provable, or waits."""
    began = time.monotonic()
    for candidate in job.candidates:
        proof, spent = job.proofs[candidate.uuid], time.monotonic() - began
        if not job.named and not fits_time(proof, spent=spent, budget=config.drills.time):
            continue  # it is the first of the next run
        why = "" if job.named else too_large(candidate, proof, config.drills)
        outcome = _refused(candidate, why) if why else _tried(candidate, drill)
        remember_outcome(config.state, outcome, now=datetime.now(UTC))
        yield outcome


def _tried(candidate: Candidate, drill: Callable[[Candidate], Outcome]) -> Outcome:
    """What went wrong around a drill does not keep the next VM from its own."""
    try:
        return drill(candidate)
    except VmborgError as error:
        return _refused(candidate, f"{error.brief} {error.evidence}".strip(), remedy=error.remedy)


def _refused(candidate: Candidate, why: str, remedy: str = "Give it more, or drill it on a larger host.") -> Outcome:
    return Outcome(
        candidate.vm,
        candidate.uuid,
        candidate.archive,
        candidate.repository,
        Verdict.NOT_PROVABLE,
        why,
        remedy=remedy,
    )
