"""Putting a domain back on its own disks: the one function that every way out of a backup ends in.

It looks, does the most urgent step, and looks again, until nothing is left to do (see recovery_plan). It may be
killed anywhere and called again, by another process, in another state of the domain. It knows no journal: it is given
an entry and hands out what that must say before a step that a later call has to know of.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from infra.errors import (
    DomainBusy,
    DomainNotFound,
    DomainStateChanged,
    HypervisorUnreachable,
    RecoveryFailed,
    VmborgError,
)
from infra.hypervisor.commit_live import Deadlines, commit_live
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.definition import with_base
from infra.hypervisor.domain import Domain
from infra.hypervisor.overlay_file import commit_offline, stamp
from infra.hypervisor.qemu_process import life_of
from infra.hypervisor.recovery_plan import Act, Job, Place, Step, View, plan
from infra.hypervisor.recovery_view import look
from infra.hypervisor.standstill import Record, Standstill
from infra.hypervisor.thaw import unconfirmed
from infra.model import JournalEntry, Overlay, Phase, PutBackReport

logger = logging.getLogger("vmborg.recovery")

THAW_S = 15.0
"""How long the last thaw of a call is tried, seconds."""

_LOOK_ANEW = (DomainStateChanged, DomainNotFound, HypervisorUnreachable)
"""Errors that mean: what was seen is no longer so."""

_SETBACKS = (
    10  # of these in a row, with waits that add up to 11 s: a daemon has restarted, a domain has started by then
)
_WAIT_S = 0.3
_LONGEST_WAIT_S = 2.0
_OF_A_DAEMON = 3  # each has waited for it already (connection.RECONNECT_WAIT): it gets a minute
_ACHIEVED_S = 10.0  # what took so long before its setback was no part of a row
_DOUBTS = 3  # what makes us refuse must be seen so often: a job or a qemu that is just ending is gone then


def put_back(
    hypervisor: Hypervisor,
    entry: JournalEntry,
    *,
    deadlines: Deadlines,
    on_action: Callable[[str], None] = lambda _: None,
    save: Callable[[JournalEntry], None] = lambda _: None,
) -> PutBackReport:
    """Put the domain of a journal entry back: thawed, on its bases in every definition, its overlays gone.

    `on_action` gets a sentence for each thing done. `save` gets the entry whenever it says something new that a later
    call must know; it is to be on disk when `save` returns. What cannot be put back does not keep the rest from it.
    The caller holds the domain's lock, and closes the entry if this returns.

    Raises CommitFailed (still on an overlay; a later call goes on), DomainBusy (a foreign block job), ThawUnconfirmed,
    RecoveryFailed (a person has to look: nothing of that overlay was touched), HypervisorUnreachable.
    """
    record = Record(entry, save=save, on_action=on_action)
    standstill = Standstill(hypervisor, record)
    standstill.thaw(0.0)  # at once: to commit takes longer than a guest should stand still
    try:
        standstill.let_run()
        _Work(hypervisor, record, standstill, deadlines=deadlines).put_back()
    finally:
        thawed = standstill.thaw(THAW_S)
    if not thawed:
        raise unconfirmed(entry.name, standstill.evidence)
    return PutBackReport(uuid=entry.uuid, name=entry.name, actions=tuple(record.actions))


def _more(setbacks: int, error: VmborgError, *, seconds: float) -> int:
    """Count one more. A daemon that stays away takes long each time and achieves nothing."""
    if isinstance(error, HypervisorUnreachable):
        return setbacks + _OF_A_DAEMON
    return 1 if seconds > _ACHIEVED_S else setbacks + 1


class _Work:
    def __init__(self, hypervisor: Hypervisor, record: Record, standstill: Standstill, *, deadlines: Deadlines) -> None:
        self._hypervisor = hypervisor
        self._record = record
        self._standstill = standstill
        self._deadlines = deadlines
        self._failed: dict[str, VmborgError] = {}  # by disk target
        self._doubts = 0
        self._resumed = False

    def put_back(self) -> None:
        """Do steps until none is left. Raises the first failure, with the others in its evidence."""
        setbacks, done = 0, False
        while not done:
            began = time.monotonic()
            try:
                done = self._round()
                setbacks = 0
            except _LOOK_ANEW as error:
                setbacks = _more(setbacks, error, seconds=time.monotonic() - began)
                if setbacks > _SETBACKS:
                    raise
                logger.info("%s: %s Looking again.", self._record.entry.name, error.brief)
                time.sleep(min(_WAIT_S * setbacks, _LONGEST_WAIT_S))
        self._raise_failures()

    def _round(self) -> bool:
        """Look, and do the most urgent step; whether there was none."""
        entry, seconds = self._record.entry, self._deadlines.commit
        steps = self._due(look(self._hypervisor, entry, given_up=self._failed, seconds=seconds))
        if not steps:
            return True
        first = steps[0].act
        self._doubts = self._doubts + 1 if first in (Act.WAIT, Act.REFUSE) else 0
        if 0 < self._doubts < _DOUBTS:
            time.sleep(_WAIT_S)
            return False
        self._doubts = 0
        for step in steps if first is Act.UNLINK else steps[:1]:  # one look at all domains is enough for all files
            if step.act is first:
                self._do(step)
        return False

    def _due(self, view: View) -> list[Step]:
        self._correct_memory(view)
        if self._resumed:
            view = replace(view, resumable=False)
        return [step for step in plan(view) if step.overlay is None or step.overlay.target not in self._failed]

    def _do(self, step: Step) -> None:
        if step.overlay is None:
            self._resume()
            return
        try:
            self._act(step.act, step.overlay, step.reason)
        except _LOOK_ANEW:
            raise
        except VmborgError as error:
            logger.warning("%s: %s", self._record.entry.name, error)
            self._failed[step.overlay.target] = error

    def _act(self, act: Act, overlay: Overlay, reason: str) -> None:
        match act:
            case Act.COMMIT_LIVE:
                self._commit_live(overlay)
            case Act.COMMIT_OFFLINE:
                self._record.remember(phase=Phase.PUTTING_BACK)
                commit_offline(overlay, seconds=self._deadlines.commit)
                self._redefine(overlay)
                self._settle(overlay)
                self._record.tell(
                    f"{overlay.target}: committed its overlay into {overlay.base} while no guest ran on it"
                )
            case Act.REDEFINE:
                self._redefine(overlay)
            case Act.UNLINK:
                self._unlink(overlay)
            case Act.WAIT:
                raise DomainBusy(
                    f"The VM {self._record.entry.name!r} cannot be put back now: {reason}.",
                    evidence=f"it is on {overlay.path}",
                    remedy="Wait for that job or end it (`virsh blockjob`), then run `vmborg recover`.",
                )
            case _:
                raise self._refused(overlay, reason)

    def _commit_live(self, overlay: Overlay) -> None:
        self._record.remember(phase=Phase.PUTTING_BACK)
        domain = self._domain()
        commit_live(
            domain,
            overlay,
            deadlines=self._deadlines,
            on_pivot=lambda: self._ask_pivot(domain, overlay),
            pause=self._standstill.pause,
        )
        self._settle(overlay)
        self._record.tell(f"{overlay.target}: committed its overlay into {overlay.base} and pivoted")

    def _ask_pivot(self, domain: Domain, overlay: Overlay) -> None:
        """On disk before the pivot is asked for: whoever comes after us must know that it may have happened."""
        self._record.remember(pivoting=(*self._others(overlay), (overlay.target, life_of(domain.uuid))))

    def _settle(self, overlay: Overlay) -> None:
        """On disk before the overlay's file goes: its content is in the base."""
        others = tuple(mark for mark in self._record.entry.settled if mark[0] != overlay.target)
        settled = (*others, (overlay.target, *stamp(overlay.path)))
        self._record.remember(pivoting=self._others(overlay), settled=settled)

    def _others(self, overlay: Overlay) -> tuple[tuple[str, str], ...]:
        return tuple(asked for asked in self._record.entry.pivoting if asked[0] != overlay.target)

    def _redefine(self, overlay: Overlay) -> None:
        """Correct the definition of the next start and that of a saved state, where they name the overlay."""
        try:
            domain = self._domain()
        except DomainNotFound:
            return
        if not domain.persistent():
            return
        xml = domain.inactive_xml()
        if (corrected := with_base(xml, overlay, volume_path=domain.volume_path)) != xml:
            self._hypervisor.define(corrected)
            self._record.tell(f"{overlay.target}: corrected the definition to {overlay.base}")
        saved = domain.managed_save_xml()
        if saved and (corrected := with_base(saved, overlay, volume_path=domain.volume_path)) != saved:
            domain.managed_save_define(corrected)
            self._record.tell(f"{overlay.target}: corrected the saved state to {overlay.base}")

    def _unlink(self, overlay: Overlay) -> None:
        self._settle(overlay)
        try:
            Path(overlay.path).unlink(missing_ok=True)
        except OSError as error:
            raise RecoveryFailed(
                f"The overlay of disk {overlay.target} cannot be removed; the domain is on its base.",
                evidence=str(error),
                remedy=f"Remove {overlay.path}, then run `vmborg recover`.",
            ) from error
        self._record.tell(f"{overlay.target}: removed {overlay.path}")

    def _resume(self) -> None:
        self._resumed = True  # once: if the storage still refuses, the guest is paused again and that is the truth
        self._domain().resume()
        self._record.tell("resumed the guest, which an I/O error had paused")

    def _domain(self) -> Domain:
        return self._hypervisor.by_uuid(self._record.entry.uuid)

    def _correct_memory(self, view: View) -> None:
        """What qemu writes to is neither pivoted nor settled; but a pivot may be to come while its job lives."""
        on_overlay = {seen.overlay.target for seen in view.overlays if seen.live is Place.OVERLAY}
        ended = {seen.overlay.target for seen in view.overlays if seen.live is Place.OVERLAY and seen.job is Job.NONE}
        self._record.remember(
            pivoting=tuple(asked for asked in self._record.entry.pivoting if asked[0] not in ended),
            settled=tuple(mark for mark in self._record.entry.settled if mark[0] not in on_overlay),
        )

    def _refused(self, overlay: Overlay, reason: str) -> RecoveryFailed:
        return RecoveryFailed(
            f"Disk {overlay.target} of {self._record.entry.name!r} needs a person: {overlay.path}: {reason}.",
            evidence=f"its base is {overlay.base}; nothing was changed there",
            remedy=(
                "Compare `virsh domblklist` and `virsh domblklist --inactive` with `qemu-img info --backing-chain` of "
                "the overlay. If what it holds is wanted, commit it by hand; if not, remove it. Then `vmborg recover`."
            ),
        )

    def _raise_failures(self) -> None:
        failures = list(self._failed.values())
        if not failures:
            return
        first, *others = failures
        if others:
            first.evidence = "\n".join([first.evidence, *(str(error) for error in others)])
        raise first
