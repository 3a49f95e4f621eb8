"""Letting a guest go on that a run made stand still: thaw it, resume it; and pausing it for a moment."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from infra.errors import DomainNotFound, DomainStateChanged, HypervisorError
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.domain import Domain
from infra.hypervisor.qemu_process import life_of
from infra.hypervisor.thaw import Thaw, thaw
from infra.model import DomainState, JournalEntry

AGENT_TIMEOUT_S = 5


class Record:
    """What a recovery tells, and the journal entry that it goes by: changes are saved before they count."""

    def __init__(
        self, entry: JournalEntry, *, save: Callable[[JournalEntry], None], on_action: Callable[[str], None]
    ) -> None:
        self.entry = entry
        self.actions: list[str] = []
        self._save = save
        self._on_action = on_action

    def remember(self, **changes: Any) -> None:
        """Change the entry; it is on disk when this returns."""
        entry = replace(self.entry, **changes)
        if entry != self.entry:
            self._save(entry)
            self.entry = entry

    def tell(self, action: str) -> None:
        """Something was done, in a sentence."""
        self.actions.append(action)
        self._on_action(action)


class Standstill:
    """The guest of one journal entry, and what makes it stand still."""

    def __init__(self, hypervisor: Hypervisor, record: Record) -> None:
        self._hypervisor = hypervisor
        self._record = record
        self.evidence = ""
        """Why it is not known to be thawed."""

    def _domain(self) -> Domain:
        return self._hypervisor.by_uuid(self._record.entry.uuid)

    def thaw(self, seconds: float) -> bool:
        """Thaw the guest if the entry says that it may be frozen; whether it certainly is not. Raises nothing."""
        if not self._record.entry.freeze:
            return True
        if self._another_qemu():
            self._record.remember(freeze=False)
            return True
        try:
            domain = self._domain()
            with suppress(DomainStateChanged):  # shut off: nothing is frozen, and thaw() finds that out
                domain.agent_timeout(AGENT_TIMEOUT_S)
            result = thaw(domain, seconds=seconds, agent_timeout=AGENT_TIMEOUT_S)
        except DomainNotFound:
            result = Thaw(confirmed=True)
        except HypervisorError as error:
            result = Thaw(confirmed=False, evidence=error.evidence or error.brief)
        self.evidence = result.evidence
        if result.confirmed:
            self._record.remember(freeze=False)
        if result.thawed:
            self._record.tell(f"thawed {result.thawed} file systems of the guest")
        return result.confirmed

    def _another_qemu(self) -> bool:
        """Whether the one that we made stand still has ended: the guest that runs now was started since."""
        life = self._record.entry.life
        return life not in ("", life_of(self._record.entry.uuid))

    @contextmanager
    def pause(self) -> Generator[bool]:
        """The guest paused for the block; False, and nothing is done, if it does not run. Raises HypervisorError."""
        domain = self._domain()
        if domain.state() is not DomainState.RUNNING:
            yield False
            return
        self._record.remember(paused=True)
        try:
            domain.suspend()
            yield True
        finally:
            self.let_run()

    def let_run(self) -> None:
        """Resume the guest if the entry says that we may have paused it. Raises HypervisorError."""
        if not self._record.entry.paused:
            return
        with suppress(DomainNotFound, DomainStateChanged):  # it ended: nothing is paused
            domain = self._domain()
            if domain.state() is DomainState.PAUSED and not self._another_qemu():
                domain.resume()
                self._record.tell("resumed the guest, which was paused so that a commit gets ready")
        self._record.remember(paused=False)
