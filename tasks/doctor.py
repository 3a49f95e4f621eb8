"""Look at everything a backup needs and say what is wrong and what to do. Plain functions, no Prefect."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from infra.config.models import Config
from infra.errors import DomainNotFound, HypervisorError, VmborgError
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.references import chain_paths
from infra.journal.store import Journal
from tasks.boot.known import boot_findings, passing
from tasks.doctor_dumps import dump_host_findings
from tasks.doctor_host import HOST, host_findings, libvirt_findings, repository_findings
from tasks.doctor_vm import paused, vm_findings
from tasks.dumps.hosts import hosts_before
from tasks.health import Finding, Health, failed, worst
from tasks.open_runs import open_run


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found."""

    health: Health
    findings: tuple[Finding, ...]


def diagnose(config: Config, *, vm: str | None = None, on_finding: Callable[[Finding], None]) -> Diagnosis:
    """Look at the host, the repositories, every VM and every dump host; or at one VM and what belongs to it.

    `on_finding` hears each finding as it is found.

    Raises DomainNotFound when there is no VM of that name; everything else that fails is a finding.
    """
    findings: list[Finding] = []
    for finding in _all(config, vm):
        findings.append(finding)
        on_finding(finding)
    return Diagnosis(worst(finding.health for finding in findings), tuple(findings))


def _all(config: Config, vm: str | None) -> Iterator[Finding]:
    with ExitStack() as closing:
        try:
            hypervisor = closing.enter_context(Hypervisor.open(config.hypervisor.uri))
            chosen = [hypervisor.find(vm)] if vm is not None else hypervisor.domains()
        except DomainNotFound:
            raise
        except HypervisorError as error:
            yield from host_findings(config)
            yield failed(error, subject=HOST, check="libvirt")
            yield from _repositories(config, None)
            yield from _dump_hosts(config, None)
            return
        yield from host_findings(config)
        yield from boot_findings(config) if vm is None else ()
        yield from _told(libvirt_findings(hypervisor))
        yield from _told(_repositories(config, chosen if vm is not None else None))
        yield from _told(_vms(config, hypervisor, chosen, alone=vm is not None))
        yield from _told(_dump_hosts(config, chosen if vm is not None else None))


def _told(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, and the error that ended them early if one did."""
    try:
        yield from findings
    except HypervisorError as error:
        yield failed(error, subject=HOST, check="libvirt", health=Health.UNKNOWN)


def _repositories(config: Config, chosen: list[Domain] | None) -> Iterator[Finding]:
    """All of them, or those that the chosen VMs use."""
    used = (name for domain in chosen or () for name in config.policy(domain.name).repositories)
    names = config.repositories if chosen is None else dict.fromkeys(used)
    for name in names:
        yield from repository_findings(config, name)


def _dump_hosts(config: Config, chosen: list[Domain] | None) -> Iterator[Finding]:
    """All of them, or those that are dumped before the chosen VMs' backups."""
    names = list(config.dumps.hosts)
    if chosen is not None:
        names = [each for domain in chosen for each in hosts_before(config, name=domain.name, uuid=domain.uuid)]
    for name in names:
        yield from dump_host_findings(config, name)


def _vms(config: Config, hypervisor: Hypervisor, chosen: Iterable[Domain], *, alone: bool) -> Iterator[Finding]:
    every = hypervisor.domains()
    used = frozenset(path for domain in every for path in _used(domain))
    for domain in chosen:
        yield from _one(config, domain, used)
    if alone:
        return
    known = {domain.uuid for domain in every}
    for entry in Journal(config.state.journal).entries().entries:
        if entry.uuid not in known and open_run(config, entry.uuid).dead:
            text = "libvirt knows no such VM any more, and its run is still open"
            yield Finding(Health.CRITICAL, entry.name, "journal", text, f"vmborg recover {entry.uuid}")


def _one(config: Config, domain: Domain, used: frozenset[str]) -> Iterator[Finding]:
    try:
        if why := passing(config).get(domain.uuid):
            yield Finding(Health.OK, domain.name, "policy", f"not backed up: {why}")
            yield from paused(domain.name, domain)
            return
        yield from vm_findings(config, domain, used_anywhere=used)
    except DomainNotFound:
        return  # it went away while it was looked at
    except VmborgError as error:
        yield failed(error, subject=domain.name, check="libvirt", health=Health.UNKNOWN)


def _used(domain: Domain) -> set[str]:
    try:
        return chain_paths(domain)
    except DomainNotFound:
        return set()
