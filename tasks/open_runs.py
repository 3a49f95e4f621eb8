"""Runs that have begun and not ended, and overlays that no run accounts for, told without disturbing live runs."""

from dataclasses import dataclass

from infra.config.models import Config
from infra.errors import JournalError
from infra.hypervisor.connection import Domain
from infra.hypervisor.overlays import is_overlay
from infra.hypervisor.references import chain_paths
from infra.journal.holder import holder
from infra.journal.store import Journal
from infra.model import JournalEntry


@dataclass(frozen=True, slots=True)
class OpenRun:
    """What the journal says of one domain."""

    entry: JournalEntry | None  # None: nothing open
    held_by: str  # who works on the domain now; "" for nobody

    @property
    def dead(self) -> bool:
        """Whether a run left something behind."""
        return self.entry is not None and not self.held_by

    @property
    def overlays(self) -> frozenset[str]:
        """The overlays that it accounts for."""
        return frozenset(overlay.path for overlay in self.entry.overlays) if self.entry else frozenset()


NO_RUN = OpenRun(None, "")


def open_run(config: Config, uuid: str) -> OpenRun:
    """The domain's open run. One that ends while we look is not taken for dead.

    A run closes its entry before it lets the lock go: what is still open once nobody holds the lock was left behind.
    An entry that cannot be read counts as none here; `Journal.entries` tells of it.
    """
    journal = Journal(config.state.journal)
    try:
        entry = journal.read(uuid)
        held_by = holder(config.state.locks, uuid)
        if entry is not None and not held_by:
            entry = journal.read(uuid)
    except JournalError:
        return OpenRun(None, holder(config.state.locks, uuid))
    return OpenRun(entry, held_by)


def stray_overlays(config: Config, domain: Domain) -> tuple[str, ...]:
    """Overlays of ours that the domain uses and no open run accounts for. Raises HypervisorError.

    Looked at twice: a run may begin or end between the look at the domain and that at the journal.
    """
    found: set[str] = set()
    for _ in range(2):
        found = {path for path in chain_paths(domain) if is_overlay(path)} - open_run(config, domain.uuid).overlays
        if not found:
            break
    return tuple(sorted(found))
