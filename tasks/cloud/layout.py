"""What lies where on the remote, and which files make up the copy of a date. Pure.

    REMOTE/current/             the repository as it was at the last copy
    REMOTE/history/STAMP/       what the copy of STAMP replaced or deleted in `current`
    REMOTE/listings/STAMP.json  which files the copy of STAMP had, written when it was proven whole

A generation is a listing. Each of its files lies in the oldest history folder that is younger than the listing and has
it, else in `current`. A copy that was cut short has a history folder and no listing: the generation before it is found
all the same.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from infra.errors_upkeep import CopyDiffers, GenerationNotFound

CURRENT = "current"
HISTORY = "history"
LISTINGS = "listings"
_STAMP = "%Y-%m-%dT%H%M%SZ"  # no colon: some remotes do not take it
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Listing:
    """One generation: its files with their sizes, and, where the remote has no hashes, the segments' SHA-256."""

    stamp: str
    repository: str  # borg's id of the repository
    files: Mapping[str, int]
    sha256: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(self.files.values())


def stamp_of(when: datetime) -> str:
    """A moment as it names a generation; later moments sort behind earlier ones."""
    return when.astimezone(UTC).strftime(_STAMP)


def moment_of(stamp: str) -> datetime | None:
    """The moment of a stamp; None for what is none."""
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def render_listing(listing: Listing) -> str:
    """A listing as JSON."""
    data = {"version": _VERSION, "repository": listing.repository, "files": dict(listing.files)}
    return json.dumps(data | {"sha256": dict(listing.sha256)}, separators=(",", ":")) + "\n"


def parse_listing(stamp: str, text: str) -> Listing:
    """Read a listing that came from the remote. Raises CopyDiffers when it is none."""
    try:
        found: Any = json.loads(text)
        data = cast("dict[str, Any]", found)
        _require_version(data["version"])
        files = {_safe(name): int(size) for name, size in data["files"].items()}
        hashes = {str(name): str(digest) for name, digest in data["sha256"].items()}
        return Listing(stamp, str(data["repository"]), files, hashes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CopyDiffers(
            f"The listing {stamp} on the remote is not one.",
            evidence=str(error)[:500],
            remedy="Take an earlier date with --at.",
        ) from error


def _require_version(version: object) -> None:
    if version != _VERSION:
        raise ValueError(f"version {version!r} is unknown")


def _safe(name: str) -> str:
    """A name that stays below the folder it is fetched to."""
    if not name.isprintable() or any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError(f"{name!r} is no path in a repository")
    return name


def choose(stamps: Collection[str], at: datetime | None) -> str:
    """The newest generation, or the newest one that is not younger than `at`. Raises GenerationNotFound."""
    known = sorted(stamp for stamp in stamps if moment_of(stamp))
    fitting = [stamp for stamp in known if at is None or stamp <= stamp_of(at)]
    if fitting:
        return fitting[-1]
    what = f"of {stamp_of(at)} or earlier" if at and known else "at all"
    raise GenerationNotFound(
        f"There is no copy {what} on this remote.",
        evidence=f"the copies that are whole: {', '.join(known) or 'none'}",
        remedy="Choose a later date with --at." if known else "Look at `remote`, or make a copy: `vmborg sync`.",
    )


def origins(listing: Listing, histories: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """From which folder of the remote each file of a generation comes. `histories`: what each history folder has."""
    later = sorted(stamp for stamp in histories if stamp > listing.stamp)
    found: dict[str, list[str]] = {}
    for name in listing.files:
        kept = next((stamp for stamp in later if name in histories[stamp]), None)
        found.setdefault(f"{HISTORY}/{kept}" if kept else CURRENT, []).append(name)
    return found


def outdated(
    listings: Sequence[str], histories: Sequence[str], *, now: datetime, days: int
) -> tuple[list[str], list[str]]:
    """Listings and history folders that may go: older than so many days, and needed for nothing that stays.

    The newest listing always stays. A history folder is needed by every listing that is older than it.
    """
    limit = stamp_of(now - timedelta(days=days))
    known = sorted(listings)
    gone = [stamp for stamp in known[:-1] if stamp < limit]
    staying = [stamp for stamp in known if stamp not in gone]
    oldest = staying[0] if staying else stamp_of(now)
    return gone, [stamp for stamp in sorted(histories) if stamp <= oldest and stamp < limit]
