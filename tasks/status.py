"""Is every VM of this host safe? One verdict a VM, from libvirt, the journal and the repositories."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from infra.config.models import Config
from infra.errors import DomainNotFound, HypervisorError, JournalError
from infra.hypervisor.connection import Domain, Hypervisor
from infra.journal.store import Journal
from tasks.boot.known import boot_findings, lasting
from tasks.catalogue import Catalogue, VmArchive, read_catalogue
from tasks.checking.findings import check_findings
from tasks.drills.model import Verdict as DrillVerdict
from tasks.drills.plan import is_overdue
from tasks.drills.proofs import NONE as NO_PROOF
from tasks.drills.proofs import Proof, read_proof
from tasks.dumps.status import DumpStatus, dump_statuses
from tasks.growth import dump_key, new_data, unexpected
from tasks.health import Finding, Health, failed, vm_argument, worst
from tasks.memory import suspect_findings
from tasks.open_runs import NO_RUN, OpenRun, open_run, stray_overlays
from tasks.replicas import behind
from tasks.space import space_findings

GONE = "gone"
NOT_KNOWN = "unknown"
_CLOCK_TOLERANCE = timedelta(minutes=5)

Verdict = tuple[Health, str, str]
"""Level, text, remedy."""


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that decides about one VM."""

    vm: str
    uuid: str
    state: str  # libvirt's, `gone` when it is not defined here, `unknown` when libvirt does not answer
    objective: timedelta
    repository: str  # where its backups go
    replicas: tuple[str, ...] = ()  # where they go, too
    excluded_by: str | None = None
    run: OpenRun = NO_RUN
    stray_overlays: tuple[str, ...] = ()  # overlays of ours that it uses and no journal entry knows
    archives: tuple[VmArchive, ...] = ()
    unread: tuple[str, ...] = ()  # those of its repositories that could not be read
    growth: str = ""  # what was unexpected about the new data of its last backup
    new_data: Mapping[str, int] = field(default_factory=dict[str, int])  # bytes, by archive; of this host's backups
    proof: Proof = NO_PROOF
    every: timedelta | None = None  # how long a proof is good; None: it is not missed


@dataclass(frozen=True, slots=True)
class VmStatus:
    """One VM's line."""

    health: Health
    vm: str
    uuid: str
    state: str
    text: str
    remedy: str = ""
    archive: str = ""  # the last good one
    repository: str = ""
    time: datetime | None = None
    age: timedelta | None = None
    objective: timedelta | None = None
    consistency: str = ""
    uncovered: tuple[str, ...] = ()
    excluded_by: str | None = None
    size: int | None = None  # what the guest sees of the disks in it, bytes
    stored: int | None = None  # new data in the repository, bytes; None if another host or too long ago
    seconds: float | None = None  # that borg took to create it
    proven: datetime | None = None  # when a drill last restored and booted it
    unproven: str = ""  # what its last drill found to be wrong, or that it is overdue


@dataclass(frozen=True, slots=True)
class Status:
    """The whole host."""

    health: Health
    vms: tuple[VmStatus, ...]
    problems: tuple[Finding, ...]  # what keeps us from knowing, or concerns no single VM
    dumps: tuple[DumpStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """A status with what it was judged by."""

    status: Status
    catalogue: Catalogue
    sources: tuple[Source, ...]


def judge(source: Source, now: datetime) -> VmStatus:
    """The verdict on one VM. Pure."""
    last = _newest(source)
    age = now - last.time if last else None
    health, text, remedy = _verdict(source, last, age, now)
    return VmStatus(
        health=health,
        vm=source.vm,
        uuid=source.uuid,
        state=source.state,
        text=text,
        remedy=remedy,
        archive=last.archive if last else "",
        repository=last.repository if last else source.repository,
        time=last.time if last else None,
        age=age,
        objective=source.objective,
        consistency=last.consistency if last else "",
        uncovered=last.uncovered if last else (),
        excluded_by=source.excluded_by,
        size=last.size if last and last.disks else None,
        stored=source.new_data.get(last.archive) if last else None,
        seconds=last.seconds if last else None,
        proven=source.proof.proven,
        unproven=_unproven(source, now) if source.excluded_by is None and source.state != GONE else "",
    )


def _newest(source: Source, repository: str | None = None) -> VmArchive | None:
    """The newest good archive, in this repository or in any; of equals the one in its own repository."""
    good = [each for each in source.archives if each.finished and repository in {None, each.repository}]
    return max(reversed(good), key=lambda each: (each.time, each.repository == source.repository), default=None)


def _verdict(source: Source, last: VmArchive | None, age: timedelta | None, now: datetime) -> Verdict:
    """What endangers the guest comes before what its archives say."""
    health, text, remedy = _danger(source) or _excused(source) or _archived(source, last, age, now)
    held_by = source.run.held_by
    return health, f"{text}; being worked on by {held_by}" if held_by else text, remedy


def _excused(source: Source) -> Verdict | None:
    if source.excluded_by is not None:
        return Health.OK, f"excluded by {source.excluded_by!r}", ""
    if source.state == GONE:
        return Health.OK, "no longer defined on this host; its archives are kept", ""
    return None


def _archived(source: Source, last: VmArchive | None, age: timedelta | None, now: datetime) -> Verdict:
    back_up = f"vmborg backup {vm_argument(source.vm)}"
    young = age is not None and age <= source.objective
    if source.unread and not (source.replicas and young):
        return Health.UNKNOWN, f"its repository {source.unread[0]!r} cannot be read", ""
    if last is None or age is None:
        return Health.CRITICAL, "never backed up", back_up
    if age > source.objective:
        return Health.CRITICAL, "the last good archive is older than its objective", back_up
    if age < -_CLOCK_TOLERANCE:
        return Health.WARNING, "the last archive is from the future", "Look at the clocks of the hypervisors."
    return _doubt(source, now) or _remarks(source, last)


def _doubt(source: Source, now: datetime) -> Verdict | None:
    """What is to be said of archives that are young enough: whether they restore, whether all repositories have one."""
    drill = f"vmborg drill {vm_argument(source.vm)}"
    wrong, late = _unproven(source, now), _behind(source, now)
    if wrong and source.proof.failed:
        return Health.CRITICAL, wrong, f"See docs/drills.md; `{drill}` tries it again."
    if late:
        back_up = f"vmborg backup {vm_argument(source.vm)}"
        return Health.WARNING, f"no good archive within its objective in: {', '.join(late)}", back_up
    return (Health.WARNING, wrong, drill) if wrong else None


def _unproven(source: Source, now: datetime) -> str:
    proof = source.proof
    if proof.failed and proof.tried is not None:
        return f"the drill of {proof.tried:%Y-%m-%d %H:%M}Z failed: {proof.reason}"
    first = min((each.time for each in source.archives if each.finished and each.hypervisor), default=None)
    if source.every is not None and is_overdue(proof, first=first, now=now, every=source.every):
        why = f" ({proof.verdict}: {proof.reason})" if proof.verdict is DrillVerdict.NOT_PROVABLE else ""
        return f"not proven to restore for {source.every.days} days{why}"
    return ""


def _behind(source: Source, now: datetime) -> list[str]:
    """The repositories that should have a young archive, as others do, and have none."""
    repositories = (source.repository, *source.replicas)
    found = {name: newest.time for name in repositories if (newest := _newest(source, name))}
    return behind(repositories, found, since=now - source.objective, unread=source.unread)


def _remarks(source: Source, last: VmArchive) -> Verdict:
    """What is to be said of an archive that is young enough."""
    if last.uncovered:
        text = f"not covered: {', '.join(last.uncovered)}"
        return Health.WARNING, text, "Exclude these disks if they need no backup."
    if source.growth:
        look = f"Look into it; `vmborg hold {_good_before(source, last)}` keeps the archive before."
        return Health.WARNING, f"unexpected growth: {source.growth}", look
    return Health.OK, "backed up", ""


def _good_before(source: Source, last: VmArchive) -> str:
    earlier = [each.archive for each in source.archives if each.finished and each.archive != last.archive]
    return earlier[-1] if earlier else last.archive


def _danger(source: Source) -> Verdict | None:
    entry = source.run.entry
    if entry is not None and source.run.dead:
        since = entry.started.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        text = f"the run of {since} died and left it on an overlay, or about to be put on one"
        return Health.CRITICAL, text, f"vmborg recover {vm_argument(source.vm)}"
    if source.stray_overlays:
        text = f"on an overlay that no journal entry knows: {', '.join(source.stray_overlays)}"
        return Health.CRITICAL, text, f"vmborg doctor {vm_argument(source.vm)}"
    return None


def read_status(config: Config, *, now: datetime | None = None) -> Status:
    """Look at libvirt, the journal and every repository. What cannot be read becomes a problem, not an error."""
    return look(config, now=now).status


def look(config: Config, *, now: datetime | None = None) -> Outlook:
    """The same with the archives behind it."""
    catalogue = read_catalogue(config)
    journal = Journal(config.state.journal).entries()
    problems = [failed(error, subject=f"repository {name}", check="read") for name, error in catalogue.failures.items()]
    problems += [failed(error, subject="journal", check="read") for error in journal.problems]
    problems += [*check_findings(config), *space_findings(config), *boot_findings(config)]
    problems += suspect_findings(config.state, (archive.archive for archive in catalogue.archives))
    try:
        with Hypervisor.open(config.hypervisor.uri) as hypervisor:
            sources, state = _defined(config, lasting(config, hypervisor.domains()), catalogue), GONE
    except HypervisorError as error:
        problems.append(failed(error, subject="libvirt", check="connection"))
        sources, state = [], NOT_KNOWN
    known = {source.uuid for source in sources}
    names = {archive.uuid: archive.vm for archive in catalogue.archives if archive.hypervisor == config.hypervisor.name}
    names |= {entry.uuid: entry.name for entry in journal.entries}
    sources += [
        _source(config, name, uuid, state=state, catalogue=catalogue)
        for uuid, name in names.items()
        if uuid not in known
    ]
    moment = now or datetime.now(UTC)
    vms = sorted((judge(source, moment) for source in sources), key=lambda each: (each.vm, each.uuid))
    growth = {host: _growth(config, dump_key(host))[0] for host in config.dumps.hosts}
    dumps = dump_statuses(config, catalogue.dumps, unreadable=catalogue.failures, now=moment, growth=growth)
    levels = [each.health for each in (*vms, *problems, *dumps)]
    return Outlook(Status(worst(levels), tuple(vms), tuple(problems), dumps), catalogue, tuple(sources))


def _defined(config: Config, domains: Iterable[Domain], catalogue: Catalogue) -> list[Source]:
    """A source for every domain that libvirt knows, the excluded ones too. Raises HypervisorError."""
    sources: list[Source] = []
    for domain in domains:
        try:
            state, stray = domain.state().value, stray_overlays(config, domain)
            source = _source(config, domain.name, domain.uuid, state=state, catalogue=catalogue)
        except DomainNotFound:  # it went away meanwhile; its archives make it a source all the same
            continue
        sources.append(replace(source, stray_overlays=stray))
    return sources


def _source(config: Config, name: str, uuid: str, *, state: str, catalogue: Catalogue) -> Source:
    policy = config.policy(name)
    growth, stored = _growth(config, uuid)
    return Source(
        vm=name,
        uuid=uuid,
        state=state,
        objective=policy.objective,
        repository=policy.repository,
        replicas=policy.replicas,
        excluded_by=config.is_excluded(name),
        run=open_run(config, uuid),
        archives=catalogue.of(uuid),
        unread=tuple(name for name in policy.repositories if name in catalogue.failures),
        growth=growth,
        new_data=stored,
        proof=_proof(config, uuid),
        every=None if config.drills.of(name).skip else config.drills.every,
    )


def _proof(config: Config, uuid: str) -> Proof:
    try:
        return read_proof(config.state, uuid)
    except JournalError:
        return NO_PROOF  # it can be made anew, and is overdue then


def _growth(config: Config, source: str) -> tuple[str, dict[str, int]]:
    try:
        return unexpected(config.state, source), new_data(config.state, source)
    except JournalError as error:
        return error.brief, {}
