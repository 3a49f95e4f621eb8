"""What a deploy does, item by item: nothing is written where nothing differs, or when it is only asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Changes:
    """What was created, updated, removed and left as it is; with `dry_run`, what would be."""

    dry_run: bool = False
    created: list[str] = field(default_factory=list[str])
    updated: list[str] = field(default_factory=list[str])
    removed: list[str] = field(default_factory=list[str])
    unchanged: list[str] = field(default_factory=list[str])

    def put(self, what: str, *, wanted: object, found: object | None, write: Callable[[], object]) -> None:
        """Make one thing as it is wanted. `found` is what is there, None for nothing."""
        if found is not None and wanted == found:
            self.unchanged.append(what)
            return
        (self.created if found is None else self.updated).append(what)
        if not self.dry_run:
            write()

    def remove(self, what: str, delete: Callable[[], object]) -> None:
        """Take one thing away."""
        self.removed.append(what)
        if not self.dry_run:
            delete()

    def data(self) -> dict[str, list[str]]:
        """As `vmborg deploy --json` prints it."""
        return {
            "created": sorted(self.created),
            "updated": sorted(self.updated),
            "removed": sorted(self.removed),
            "unchanged": sorted(self.unchanged),
        }
