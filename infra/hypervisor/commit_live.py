"""Moving a running guest's disk from its overlay back to its base: commit, wait until ready, pivot.

What counts is what the live definition says, not what a call returned: libvirt's error 83 means both "not
ready yet" and "there is a job already", a job at 100 % is not ready, and a pivot that failed may have
happened. The job lives in qemu: when we die or give up it goes on, and the next call takes it over.

A guest that writes faster than its base's storage takes it keeps the job from ever being ready, and a pivot that was
asked for from happening (qemu, block/mirror.c: both wait for a moment without dirty blocks). When its time is over
the guest is paused for a moment, so that the rest can be copied.
"""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from infra.errors import (
    CommitFailed,
    DomainBusy,
    DomainNotFound,
    DomainStateChanged,
    HypervisorError,
    HypervisorUnreachable,
)
from infra.hypervisor.domain import Domain
from infra.hypervisor.parsed import ParsedMirror
from infra.model import ImageKind, Overlay

logger = logging.getLogger("vmborg.commit")

_MIB = 1024**2
_STEP_S = 0.1
_SLOW_STEP_S = 0.5
_QUICK_FOR_S = 10.0
_ENDED_LOOKS = 3  # a job is taken for ended when so many looks in a row show none

_ELSEWHERE = (DomainNotFound, DomainStateChanged, HypervisorUnreachable)
"""Errors that say nothing about the commit: look at the domain again."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that one disk may take, and how fast its commit may copy meanwhile."""

    commit: float  # until the base holds everything
    pivot: float  # from then until qemu writes to the base alone
    pause: float  # that the guest may be paused for when one of the two has passed; 0: never
    bandwidth: int = 0  # bytes a second until then; 0: no limit


class _Late(CommitFailed):
    """A deadline has passed."""


class _Stage(StrEnum):
    NO_JOB = "on the overlay, without a job"
    COPYING = "the job copies"
    READY = "ready for the pivot"
    ENDING = "on the base, the job is ending"
    DONE = "on the base"
    ELSEWHERE = "not on the overlay and not on the base"
    FOREIGN = "in a block job of somebody else's"


def commit_live(
    domain: Domain,
    overlay: Overlay,
    *,
    deadlines: Deadlines,
    on_pivot: Callable[[], None],
    pause: Callable[[], AbstractContextManager[bool]],
) -> None:
    """Commit and pivot one disk, taking over a job that is under way. `on_pivot` is called right before the pivot.

    `pause` makes the guest stand still for a block, and says whether it could.

    Raises CommitFailed, the guest is on its overlay still then and a later call may go on;
    DomainStateChanged, DomainNotFound, HypervisorUnreachable when somebody has to look anew.
    """
    if _stage(domain, overlay) is _Stage.NO_JOB:
        _begin(domain, overlay, bandwidth=deadlines.bandwidth)
    try:
        _finish(domain, overlay, ready_s=deadlines.commit, pivot_s=deadlines.pivot, on_pivot=on_pivot)
    except _Late:
        if deadlines.bandwidth:
            domain.lift_limit(overlay.target)
        if not deadlines.pause:
            raise
        logger.warning("%s: the guest is paused for at most %g s", overlay.target, 2 * deadlines.pause)
        with pause() as stands_still:
            if not stands_still:
                raise
            _finish(domain, overlay, ready_s=deadlines.pause, pivot_s=deadlines.pause, on_pivot=on_pivot)


def _finish(domain: Domain, overlay: Overlay, *, ready_s: float, pivot_s: float, on_pivot: Callable[[], None]) -> None:
    if _wait_ready(domain, overlay, ready_s) is _Stage.DONE:
        return
    on_pivot()
    _pivot(domain, overlay, pivot_s)


def _stage(domain: Domain, overlay: Overlay) -> _Stage:
    live = domain.live()
    disk = live.disk(overlay.target) if live else None
    if disk is None:
        return _Stage.ELSEWHERE
    if disk.mirror is not None and not is_commit_into(disk.mirror, overlay.base):
        return _Stage.FOREIGN
    if disk.image.path == overlay.path:
        if disk.mirror is None:
            return _Stage.NO_JOB
        return _Stage.READY if disk.mirror.ready else _Stage.COPYING
    if disk.image.path == overlay.base:
        return _Stage.DONE if disk.mirror is None else _Stage.ENDING
    return _Stage.ELSEWHERE


def is_commit_into(mirror: ParsedMirror, base: str) -> bool:
    """Whether a disk's block job is an active commit into this image. Pure."""
    return mirror.job == "active-commit" and mirror.image.path == base


def _begin(domain: Domain, overlay: Overlay, *, bandwidth: int) -> None:
    try:
        domain.block_commit(overlay.target, base=overlay.base, top=overlay.path, bandwidth=-(-bandwidth // _MIB))
    except DomainBusy as error:  # a job that began since we looked; the next look tells whose
        logger.info("%s: %s", overlay.target, error.evidence)
    except _ELSEWHERE:
        raise
    except HypervisorError as error:
        raise CommitFailed(
            f"The block commit of disk {overlay.target} cannot begin; the guest goes on on its overlay.",
            evidence=f"{error.evidence}\n{_space(overlay)}",
            remedy=_remedy(error),
            code=error.code,
        ) from error


def _wait_ready(domain: Domain, overlay: Overlay, seconds: float) -> _Stage:
    began = time.monotonic()
    without_job = 0
    while True:
        stage = _stage(domain, overlay)
        if stage in (_Stage.READY, _Stage.DONE):
            return stage
        if stage in (_Stage.ELSEWHERE, _Stage.FOREIGN):
            raise DomainStateChanged(f"Disk {overlay.target} is no longer where it was.", evidence=stage)
        without_job = without_job + 1 if stage is _Stage.NO_JOB else 0
        if without_job >= _ENDED_LOOKS:
            raise _job_failed(domain, overlay)
        elapsed = time.monotonic() - began
        if elapsed > seconds:
            raise _Late(
                f"The block commit of disk {overlay.target} was not ready in {seconds:g} s.",
                evidence=f"{stage}; {_progress(domain, overlay)}",
                remedy="It goes on in qemu and is taken over by `vmborg recover`. A guest that writes faster than "
                "its base's storage can take it needs a quieter hour or a longer commit_deadline.",
            )
        time.sleep(_STEP_S if elapsed < _QUICK_FOR_S else _SLOW_STEP_S)


def _pivot(domain: Domain, overlay: Overlay, seconds: float) -> None:
    until = time.monotonic() + seconds
    evidence = ""
    odd = 0  # looks in a row; while libvirt takes note of the job's end, its definition shows all kinds of things
    while True:
        try:
            domain.pivot(overlay.target)
        except _ELSEWHERE:
            raise
        except HypervisorError as error:
            evidence = error.evidence
            logger.debug("%s: %s", overlay.target, evidence)
        stage = _stage(domain, overlay)
        if stage is _Stage.DONE:
            domain.block_job(overlay.target)  # waits until libvirt has written the definitions and ended the job
            return
        odd = odd + 1 if stage in (_Stage.ELSEWHERE, _Stage.FOREIGN, _Stage.NO_JOB) else 0
        if odd >= _ENDED_LOOKS:
            raise _not_pivoting(domain, overlay, stage)
        if time.monotonic() > until:
            raise _Late(
                f"The pivot of disk {overlay.target} did not happen in {seconds:g} s.",
                evidence=f"{stage}; {evidence}",
                remedy="The guest runs on; `vmborg recover` tries again.",
            )
        time.sleep(_STEP_S)


def _not_pivoting(domain: Domain, overlay: Overlay, stage: _Stage) -> HypervisorError:
    if stage is _Stage.NO_JOB:
        return _job_failed(domain, overlay)
    return DomainStateChanged(f"Disk {overlay.target} is no longer where it was.", evidence=stage)


def _job_failed(domain: Domain, overlay: Overlay) -> CommitFailed:
    state = f"the guest is {domain.state()}{', stopped by an I/O error' if domain.stopped_by_io() else ''}"
    return CommitFailed(
        f"The block commit of disk {overlay.target} failed; the guest is on its overlay still.",
        evidence=f"qemu ended the job\n{state}\n{_space(overlay)}",
        remedy=f"Look whether {overlay.base} can be written to and its file system has room for what the overlay "
        "holds, then run `vmborg recover`. /var/log/libvirt/qemu tells more.",
    )


def _progress(domain: Domain, overlay: Overlay) -> str:
    job = domain.block_job(overlay.target)
    return f"{job.cur} of {job.end} bytes" if job else "no progress known"


def _space(overlay: Overlay) -> str:
    """Free bytes where the base must grow: the usual reason for a failed commit."""
    if overlay.base_kind is ImageKind.BLOCK:
        return f"{overlay.base} is a block device"
    try:
        free = shutil.disk_usage(Path(overlay.base).parent).free
        held = Path(overlay.path).stat().st_blocks * 512
    except OSError as error:
        return str(error)
    return f"the overlay holds {held} bytes, the file system of {overlay.base} has {free} bytes free"


def _remedy(error: HypervisorError) -> str:
    if "Permission denied" in error.evidence:
        return (
            "A security module keeps qemu from writing to the base: AppArmor with libvirt before 12.1 forbids block "
            "commits on some systems. Look for DENIED in the kernel's log, then run `vmborg recover`."
        )
    return error.remedy or "Look into /var/log/libvirt/qemu, then run `vmborg recover`."
