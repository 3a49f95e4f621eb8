"""What `doctor` looks at in one VM: leftovers, disks, agent, room for overlays, whoever else works on it."""

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from infra.config.models import Config, VmPolicy
from infra.errors import HypervisorError, VmborgError
from infra.hypervisor.checkpoints import is_ours
from infra.hypervisor.connection import Domain
from infra.hypervisor.domain_xml import all_paths
from infra.hypervisor.inspect import inspect
from infra.hypervisor.overlays import leftovers
from infra.model import DomainFacts, ImageKind, Quiesce
from tasks.doctor_reading import checkpoint_findings
from tasks.health import Finding, Health, failed, vm_argument
from tasks.open_runs import OpenRun, open_run, stray_overlays
from tasks.restore.workspace import former_files
from tasks.units import size


def vm_findings(config: Config, domain: Domain, *, used_anywhere: frozenset[str]) -> Iterator[Finding]:
    """Everything about one VM. `used_anywhere` are the paths in any chain of any domain of this host."""
    name = domain.name
    excluded = config.is_excluded(name)
    run = open_run(config, domain.uuid)
    yield from _open_run(name, run)
    yield from paused(name, domain)
    yield from _paths(config, name, domain)
    if run.held_by:  # its overlays, jobs and freeze are that run's; in a moment all is different
        return
    if excluded is not None:
        yield Finding(Health.OK, name, "policy", f"excluded by {excluded!r}")
        return
    policy = config.policy(name)
    try:
        must_have = config.required_exclusions(name)
        facts = inspect(domain, exclude_disks=policy.exclude_disks, must_have=must_have, ours=run.overlays)
    except VmborgError as error:
        yield failed(error, subject=name, check="disks")
        return
    yield from _disks(facts)
    yield from _others(facts)
    if facts.running:
        yield from _agent(domain, facts, policy)
        yield from _space(config, facts, policy)
    yield from _leftovers(config, facts, run.overlays | used_anywhere)


def _open_run(name: str, run: OpenRun) -> Iterator[Finding]:
    if run.entry is None:
        return
    since = f"{run.entry.started:%Y-%m-%d %H:%M:%SZ}"
    if not run.dead:
        yield Finding(Health.OK, name, "journal", f"a run of {since} works on it ({run.held_by})")
        return
    text = f"the run of {since} died in the phase {run.entry.phase.value}; the VM may be on an overlay"
    yield Finding(Health.CRITICAL, name, "journal", text, f"vmborg recover {vm_argument(name)}")


def paused(name: str, domain: Domain) -> Iterator[Finding]:
    """Whether an error of a disk stopped it."""
    try:
        stopped = domain.stopped_by_io()
    except HypervisorError as error:
        yield failed(error, subject=name, check="state")
        return
    if stopped:
        text = "qemu paused it because a disk gave an error: the file system of its images may be full"
        remedy = f"Make room there, or look at that storage; then: virsh resume {vm_argument(name)}"
        yield Finding(Health.CRITICAL, name, "state", text, remedy)


def _paths(config: Config, name: str, domain: Domain) -> Iterator[Finding]:
    """What the definitions name: files that are gone, and overlays that nobody remembers."""
    definitions = {"definition": domain.inactive_xml(), "running guest": domain.live_xml()}
    for what, xml in definitions.items():
        for path in sorted(all_paths(xml)) if xml else ():
            if path.startswith("/") and not os.path.lexists(path):
                text = f"its {what} names {path}, which does not exist"
                remedy = _bring_back(path) or (
                    f"Bring the file back, or correct the definition: virsh edit {vm_argument(name)}"
                )
                yield Finding(Health.CRITICAL, name, "files", text, remedy)
    for path in stray_overlays(config, domain):
        text = f"it is on {path}, an overlay of a backup that no journal entry knows"
        remedy = "Do not delete it; commit it: docs/operations.md, 'A VM on an unknown overlay'."
        yield Finding(Health.CRITICAL, name, "overlay", text, remedy)


def _bring_back(path: str) -> str:
    """The command that undoes the half of a restore that was killed; "" if none put the file aside."""
    aside = [former for former, original in former_files([Path(path).parent]) if str(original) == path]
    if not aside:
        return ""
    command = f"mv {shlex.quote(str(aside[-1]))} {shlex.quote(path)}"
    return f"A restore that was killed put it aside. Restore again, or bring back what was there: {command}"


def _disks(facts: DomainFacts) -> Iterator[Finding]:
    for disk in facts.uncovered:
        source = f" ({disk.source})" if disk.source else ""
        remedy = f"Exclude it if it need not be backed up: exclude_disks: [{disk.target}]"
        yield Finding(
            Health.WARNING, facts.name, "disks", f"{disk.target}{source} is not covered: {disk.reason}", remedy
        )
    covered = ", ".join(disk.target for disk in facts.covered) or "none"
    yield Finding(Health.OK if facts.covered else Health.CRITICAL, facts.name, "disks", f"covered: {covered}")
    for disk in facts.covered:
        if len(disk.chain) > 1:
            below = ", ".join(image.path for image in disk.chain[1:])
            text = f"{disk.target} lies on {below}: a linked clone, or an overlay of another tool"
            yield Finding(Health.OK, facts.name, "chain", text)


def _others(facts: DomainFacts) -> Iterator[Finding]:
    """Whoever else works, or worked, on its disks."""
    if facts.block_jobs:
        text = f"a block job runs on {', '.join(facts.block_jobs)}; a backup now would be refused"
        yield Finding(Health.WARNING, facts.name, "jobs", text, "Wait for it, or: virsh blockjob DOMAIN DISK --abort")
    if facts.job:
        yield Finding(
            Health.WARNING, facts.name, "jobs", f"busy ({facts.job}); a backup now would be refused", "Wait for it."
        )
    foreign = [name for name in facts.checkpoints if not is_ours(name)]
    for kind, names in (("snapshots", facts.snapshots), ("checkpoints", foreign)):
        if names:
            text = f"libvirt keeps {kind} of somebody else: {', '.join(names)}; vmborg leaves them alone"
            yield Finding(Health.OK, facts.name, kind, text)
    yield from checkpoint_findings(facts)


def _agent(domain: Domain, facts: DomainFacts, policy: VmPolicy) -> Iterator[Finding]:
    """Whether the policy's freeze would work."""
    if policy.quiesce is Quiesce.NEVER:
        yield Finding(Health.OK, facts.name, "agent", "not asked (quiesce: never); archives are crash-consistent")
        return
    needed = policy.quiesce is Quiesce.REQUIRE
    health = Health.CRITICAL if needed else Health.WARNING
    so = "backups fail (quiesce: require)" if needed else "archives are crash-consistent only"
    remedy = "Install and start qemu-guest-agent in the guest, or set quiesce: never for it."
    if not facts.has_agent:
        yield Finding(health, facts.name, "agent", f"no guest agent is connected; {so}", remedy)
        return
    try:
        status = domain.freeze_status(timeout=policy.agent_timeout)
        mounted = [each.mountpoint for each in domain.filesystems()] if policy.freeze_mountpoints else []
    except HypervisorError as error:
        yield failed(error, subject=facts.name, check="agent", health=health)
        return
    if status != "thawed":
        text = f"its file systems are {status}, and no run of ours holds them"
        yield Finding(Health.CRITICAL, facts.name, "agent", text, f"virsh domfsthaw {vm_argument(facts.name)}")
        return
    missing = [point for point in policy.freeze_mountpoints if point not in mounted]
    if missing:
        text = f"freeze_mountpoints names what the guest has not mounted: {', '.join(missing)}; {so}"
        yield Finding(health, facts.name, "agent", text, f"It has: {', '.join(mounted)}")
        return
    yield Finding(Health.OK, facts.name, "agent", "answers; its file systems can be frozen")


def _overlay_folders(config: Config, facts: DomainFacts) -> set[Path]:
    bases = [disk.base for disk in facts.covered]
    return {config.hypervisor.overlay_dir if b.kind is ImageKind.BLOCK else Path(b.path).parent for b in bases}


def _space(config: Config, facts: DomainFacts, policy: VmPolicy) -> Iterator[Finding]:
    for folder in sorted(_overlay_folders(config, facts)):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            text = f"{folder}, where overlays would go: {error.strerror}"
            yield Finding(Health.CRITICAL, facts.name, "space", text, "Create it, or set hypervisor.overlay_dir.")
            continue
        enough = free >= policy.min_free_start
        text = f"{folder}: {size(free)} free for overlays"
        wanted = f"A backup starts with {size(policy.min_free_start)} (min_free_start): free some space there."
        yield Finding(Health.OK if enough else Health.CRITICAL, facts.name, "space", text, "" if enough else wanted)


def _leftovers(config: Config, facts: DomainFacts, known: Iterable[str]) -> Iterator[Finding]:
    used = set(known)
    for path in leftovers(_overlay_folders(config, facts)):
        if path not in used:
            text = f"{path} looks like an overlay of a backup; no domain and no journal entry names it"
            remedy = "See what it is (qemu-img info) before you remove it: it may hold what a guest wrote."
            yield Finding(Health.WARNING, facts.name, "leftovers", text, remedy)
