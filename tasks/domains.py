"""Steps that act on the domain: inspect, recover, preflight, snapshot, pivot."""

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from infra.borg.client import Repository
from infra.borg.names import unfinished_glob
from infra.errors import DomainBusy, DomainStateChanged, FreezeFailed, NoSpace, VmborgError
from infra.hypervisor import images
from infra.hypervisor.freeze import frozen_window
from infra.hypervisor.inspect import inspect
from infra.hypervisor.overlays import is_overlay
from infra.hypervisor.qemu_process import life_of
from infra.hypervisor.snapshot import overlay_path, require_free_paths, take_snapshot
from infra.manifest import Manifest
from infra.model import (
    Consistency,
    Disk,
    DomainFacts,
    DomainState,
    FreezeReport,
    JournalEntry,
    Overlay,
    Phase,
    PutBackReport,
    Quiesce,
    Verdict,
)
from infra.process import HeldSignals
from tasks import staging
from tasks.job import BackupJob
from tasks.policy import step
from tasks.reading import Reading
from tasks.recovery import Recovery, close_run, recover_entry

logger = logging.getLogger("vmborg.backup")

INSPECT_TIMEOUT_S = 120.0
PREFLIGHT_TIMEOUT_S = 300.0
PROBE_LOCK_WAIT_S = 80  # at most; three tries make minutes, and no guest writes to an overlay meanwhile


@dataclass(frozen=True, slots=True)
class FrozenPoint:
    """The instant that an archive holds: what is on disk, and how still the guest was."""

    facts: DomainFacts
    overlays: tuple[Overlay, ...]  # empty for a shut-off domain
    freeze: FreezeReport
    manifest: Manifest
    reading: Reading


@step("inspect", retries=True, timeout_s=INSPECT_TIMEOUT_S)
def inspect_domain(job: BackupJob) -> DomainFacts:
    """State, definitions and disks of the domain; refuse it while somebody else works on its disks.

    Raises DomainNotFound, DomainBusy, DiskMissing, ImageError, UsageError (an excluded disk that it does not have).
    """
    must_have = job.config.required_exclusions(job.name)
    facts = inspect(job.domain, exclude_disks=job.policy.exclude_disks, must_have=must_have)
    for disk in facts.disks:
        how = logger.warning if disk.verdict is Verdict.UNCOVERED else logger.info
        how("%s: %s, %s%s", disk.target, disk.verdict, disk.source or "no medium", _because(disk))
    _refuse_busy(facts)
    return facts


def _because(disk: Disk) -> str:
    return f" ({disk.reason})" if disk.reason else ""


def _refuse_busy(facts: DomainFacts) -> None:
    left = [disk.base.path for disk in facts.covered if is_overlay(disk.base.path)]
    if left:
        raise DomainBusy(
            f"The VM {facts.name!r} is on an overlay of a backup that no journal entry knows.",
            evidence="\n".join(left),
            remedy="No snapshot is taken on top of it. docs/operations.md says how to commit it by hand.",
        )
    if facts.block_jobs:
        raise DomainBusy(
            f"The VM {facts.name!r} has a block job on {', '.join(facts.block_jobs)} that is not ours.",
            evidence="libvirt: virDomainGetBlockJobInfo",
            remedy="Wait for it, or end it (`virsh blockjob DOMAIN DISK --abort`), then back up again.",
        )
    if facts.job:
        raise DomainBusy(
            f"The VM {facts.name!r} is busy: {facts.job}.",
            evidence="libvirt: virDomainGetJobStats",
            remedy="Wait for it, or end it (`virsh domjobabort DOMAIN`), then back up again.",
        )
    if not facts.covered:
        raise DomainBusy(
            f"The VM {facts.name!r} has no disk that could be backed up.",
            evidence="; ".join(f"{disk.target}: {disk.verdict} {disk.reason}" for disk in facts.disks) or "no disks",
            remedy="Exclude the VM, or take a disk out of exclude_disks.",
        )


@step("recover")
def recover_leftovers(job: BackupJob) -> Recovery | None:
    """Put the domain back if an earlier run died on it. None when the journal holds nothing.

    Raises RecoveryFailed, CommitFailed, ThawUnconfirmed: no snapshot is ever taken on top of a leftover.
    """
    entry = job.journal.read(job.uuid)
    if entry is None:
        return None
    logger.warning("an earlier run of %s did not end by itself; putting the domain back", job.name)
    recovery = recover_entry(job.config, job.hypervisor, job.journal, entry)
    for action in recovery.actions:
        logger.warning("recovered: %s", action)
    return recovery


@step("preflight", retries=True, timeout_s=PREFLIGHT_TIMEOUT_S)
def preflight(job: BackupJob, facts: DomainFacts, repository: Repository) -> None:
    """Everything that can be known to fail before the guest is touched: on this host, and in one repository.

    Raises NoSpace, FreezeFailed (policy `require` without an agent), RepositoryNotFound, RepositoryLocked,
    PassphraseWrong, RepositoryInvalid.
    """
    if facts.running:
        _require_space(job, facts)
        if job.policy.quiesce is Quiesce.REQUIRE and not facts.has_agent:
            raise FreezeFailed(
                f"The VM {facts.name!r} has no guest agent, and its policy is `quiesce: require`.",
                evidence="the channel org.qemu.guest_agent.0 is not connected",
                remedy="Install and start qemu-guest-agent in the guest, or set `quiesce: try`.",
            )
    _drop_leftovers(job, repository)


def _drop_leftovers(job: BackupJob, repository: Repository) -> None:
    """Delete archives of this VM whose run died before they were verified; asking for them proves the repository."""
    wait = min(PROBE_LOCK_WAIT_S, repository.target.lock_wait)
    for archive in repository.archives(unfinished_glob(job.uuid), lock_wait=wait, to_write=True):
        if (archive.comment.get("host"), archive.comment.get("uuid")) == (job.config.hypervisor.name, job.uuid):
            logger.warning("deleting %s: its run ended before it was verified", archive.name)
            repository.delete([archive.name])


def _require_space(job: BackupJob, facts: DomainFacts) -> None:
    directories = {str(Path(overlay.path).parent) for overlay in plan_overlays(job, facts)}
    for directory in sorted(directories):
        free = shutil.disk_usage(directory).free
        if free < job.policy.min_free_start:
            raise NoSpace(
                f"There is too little space for the overlays of {facts.name!r}.",
                evidence=f"{directory}: {free} bytes free, {job.policy.min_free_start} wanted before a snapshot",
                remedy="Free some space there, or lower vms.defaults.min_free_start.",
            )


def plan_overlays(job: BackupJob, facts: DomainFacts) -> tuple[Overlay, ...]:
    """The overlay that each covered disk will get, unique to this run."""
    return tuple(
        Overlay(
            target=disk.target,
            base=disk.base.path,
            base_kind=disk.base.kind,
            base_format=disk.base.format,
            path=overlay_path(disk.base, disk.target, run_id=job.run_id, overlay_dir=job.config.hypervisor.overlay_dir),
        )
        for disk in facts.covered
    )


@step("snapshot")
def freeze_and_snapshot(job: BackupJob, facts: DomainFacts, reading: Reading) -> FrozenPoint:
    """Make the disks stand still: journal, freeze, checkpoint, one atomic snapshot of all disks, firmware state, thaw.

    A shut-off domain needs none of that. Then `reading` finds out what has to be read. Raises FreezeFailed,
    ThawUnconfirmed, SnapshotFailed, JournalError.
    """
    directory = staging.prepare(job)
    boot_files = staging.copy_boot_files(directory, facts)
    reading.begin(facts)
    overlays = plan_overlays(job, facts) if facts.running else ()
    if overlays:
        firmware, report = _snapshot_live(job, facts, overlays, directory, reading=reading)
    else:
        firmware = staging.copy_firmware_state(directory, facts)
        report = _offline_report(facts)
    reading.open()
    manifest = staging.write_manifest(
        job,
        directory,
        facts,
        freeze=report,
        boot_files=(*firmware.boot_files, *boot_files),
        tpm=firmware.tpm,
        autostart=job.domain.autostart(),
        readings=reading.by_target,
    )
    logger.info("consistency: %s (%s), frozen for %d ms", report.consistency, report.reason, report.frozen_ms)
    reading.log()
    return FrozenPoint(facts, overlays, report, manifest, reading)


def _offline_report(facts: DomainFacts) -> FreezeReport:
    if facts.managed_save:
        reason = "the domain was shut off with its memory saved, so its disks are as after a power cut"
        return FreezeReport(Consistency.CRASH, reason)
    return FreezeReport(Consistency.OFFLINE, "the domain was shut off")


def _snapshot_live(
    job: BackupJob, facts: DomainFacts, overlays: tuple[Overlay, ...], directory: Path, *, reading: Reading
) -> tuple[staging.FirmwareState, FreezeReport]:
    entry = JournalEntry(
        run_id=job.run_id,
        uuid=facts.uuid,
        name=facts.name,
        hypervisor=job.config.hypervisor.name,
        started=job.started,
        phase=Phase.PREPARED,
        overlays=overlays,
        was_running=facts.state is DomainState.RUNNING,
        repository=job.policy.repository,
        replicas=job.policy.replicas,
        archive=job.unfinished_archive,
        checkpoint=reading.wants_checkpoint,
        life=life_of(facts.uuid),
    )
    require_free_paths(overlays)
    job.journal.write(entry)
    with frozen_window(
        job.domain,
        policy=job.policy.quiesce,
        mountpoints=job.policy.freeze_mountpoints,
        agent_timeout=job.policy.agent_timeout,
        deadline=job.policy.freeze_deadline,
        on_freeze=lambda: job.journal.write(replace(entry, freeze=True)),
    ) as window:
        reading.mark()
        strays = take_snapshot(job.domain, facts, overlays, run_id=job.run_id)
        if strays:
            _refuse_strays(job, replace(entry, freeze=window.frozen, overlays=(*overlays, *strays)))
        firmware = staging.copy_firmware_state(directory, facts)
    job.journal.write(replace(entry, phase=Phase.SNAPSHOTTED, freeze=not window.report.thaw_confirmed))
    return firmware, window.report


def _refuse_strays(job: BackupJob, entry: JournalEntry) -> NoReturn:
    """A disk was plugged in while the snapshot was taken, and is on an overlay too: put it back, and begin anew."""
    job.journal.write(entry)
    raise DomainStateChanged(
        f"A disk was plugged into {job.name!r} while its snapshot was taken.",
        evidence=", ".join(f"{overlay.target}: {overlay.base}" for overlay in entry.overlays),
    )


def put_back_whatever_happens(job: BackupJob) -> None:
    """The step `pivot`; and if Prefect itself fails at it (its API went away), the same without Prefect.

    No signal cuts it short, neither the first one nor a further one. Raises what `pivot` raises.
    """
    with HeldSignals():
        try:
            put_domain_back(job)
        except VmborgError:
            raise
        except Exception:
            logger.exception("Prefect could not run the step; putting %s back without it", job.name)
            put_domain_back.fn(job)
            raise


@step("pivot")
def put_domain_back(job: BackupJob) -> PutBackReport | None:
    """Commit every overlay into its base, pivot, verify, unlink, close the journal. None if nothing was open.

    Raises CommitFailed, RecoveryFailed, ThawUnconfirmed; the journal stays open and recover, the next backup and the
    scheduled reconcile try again.
    """
    entry = job.journal.read(job.uuid)
    if entry is None:
        return None
    report = close_run(job.config, job.hypervisor, job.journal, entry)
    logger.info("the domain is back on its bases")
    return report


def image_stamps(facts: DomainFacts) -> dict[str, tuple[int, int]]:
    """What tells that an image was written to, of every one that a backup reads: none may be while it is read.

    Raises DiskMissing.
    """
    return {image.path: images.written(image.path) for disk in facts.covered for image in disk.chain}
