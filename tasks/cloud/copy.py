"""Make one copy: look, and touch nothing; then, with the repository's lock held, compare, copy, prove, note.

The order decides what a death at any moment leaves behind (tasks/cloud/layout.py): the old generation can always be
fetched, and the next copy goes on from what is there.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from infra.borg.upkeep import locked
from infra.errors_upkeep import CloudError, CopyDiffers, SegmentChanged
from infra.rclone.client import Abilities, local_hashes
from infra.rclone.command import OnTransfer
from tasks.cloud.job import CloudJob, require_clock, require_fresh_check, require_local
from tasks.cloud.layout import (
    CURRENT,
    HISTORY,
    LISTINGS,
    Listing,
    outdated,
    parse_listing,
    render_listing,
)
from tasks.cloud.sanity import DATA, Plan, Source, plan_copy, read_source, require_known, require_same, resized
from tasks.upkeep import file_sizes

logger = logging.getLogger("vmborg.cloud")

_ALL = 100  # percent
_JSON = ".json"


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did, or would do; bytes."""

    name: str
    repository: str
    remote: str
    stamp: str = ""
    files: int = 0  # copied, those beside the segments among it
    size: int = 0
    deleted: int = 0  # segments that went to the history
    total: int = 0  # segments in the copy
    total_size: int = 0
    proof: str = ""  # how it was compared afterwards
    expired: tuple[str, ...] = ()  # generations that are older than history_days and were removed
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Before:
    """What is on the remote before a copy."""

    files: dict[str, int]
    listings: list[str]
    histories: list[str]


Teller = Callable[[str], OnTransfer]
"""Given the name of a phase, whom to tell its progress."""


def look_there(job: CloudJob) -> Before:
    """Read what the remote holds. Raises CloudError's subtypes, ConfigError."""
    names = job.remote.files(LISTINGS)
    listings = sorted(name.removesuffix(_JSON) for name in names if name.endswith(_JSON))
    return Before(job.remote.files(CURRENT), listings, job.remote.folders(HISTORY))


def examine(job: CloudJob, *, start_over: bool, allow_shrink: bool) -> tuple[Source, Before, Plan]:
    """Judge both sides; nothing is changed on either. Raises CloudError's subtypes, ConfigError, JournalError."""
    require_local(job)
    place, remote = job.repository.location, job.settings.remote
    source = _look_here(job)
    before = look_there(job)
    require_clock(job, [*before.listings, *before.histories])
    if "config" in before.files:
        require_same(source, job.remote.read(f"{CURRENT}/config"), place=place, remote=remote)
    elif not start_over:
        require_known(before.files, remembered=str(job.remembered().get("stamp", "")), remote=remote)
    return source, before, _plan(job, source, before.files, allow_shrink=allow_shrink)


def _look_here(job: CloudJob) -> Source:
    config = (job.folder / "config").read_text(encoding="utf-8")
    return read_source(file_sizes(job.folder), config, job.repository.location)


def _plan(job: CloudJob, source: Source, there: dict[str, int], *, allow_shrink: bool) -> Plan:
    limits = (_ALL, _ALL) if allow_shrink else (job.settings.max_delete, job.settings.max_shrink)
    place = job.repository.location
    return plan_copy(source, there, job.explained(), max_delete=limits[0], max_shrink=limits[1], place=place)


def preview(job: CloudJob, *, start_over: bool, allow_shrink: bool) -> Copied:
    """What a copy would do, from names and sizes alone; no lock is taken. Raises what `examine` raises."""
    require_fresh_check(job)
    source, before, plan = examine(job, start_over=start_over, allow_shrink=allow_shrink)
    changed = resized(source, before.files, plan.common)
    return _result(job, source, plan, notes=tuple(f"{name} has another size than its copy" for name in changed))


def make_copy(job: CloudJob, *, start_over: bool, allow_shrink: bool, teller: Teller) -> Copied:
    """Copy the repository. Raises CloudError's subtypes, ConfigError, JournalError, BorgError's subtypes."""
    require_fresh_check(job)
    # Before borg is started: on a mount that is empty, or half a repository, it would find errors of its own, or write.
    _, before, _ = examine(job, start_over=start_over, allow_shrink=allow_shrink)
    abilities = job.remote.abilities()
    with locked(job.repository) as require_lock:
        # What was waited for may have committed, or copied, meanwhile.
        source, before = _look_here(job), replace(before, files=job.remote.files(CURRENT))
        plan = _plan(job, source, before.files, allow_shrink=allow_shrink)
        hashes = {} if abilities.hashes else local_hashes(job.remote.place, job.folder, source.segments)
        _require_unchanged(job, source, before, plan, hashes=hashes, tell=teller("comparing"))
        require_lock()
        _transfer(job, source, teller("copying"))
        proof = _prove(job, source, plan, abilities=abilities, tell=teller("proving"))
        require_lock()
    listing = Listing(job.stamp, source.id, source.files, hashes)
    job.remote.write(f"{LISTINGS}/{job.stamp}{_JSON}", render_listing(listing))
    job.remember(source.id)
    expired = _expire(job, before)
    return _result(job, source, plan, proof=proof, expired=expired)


def _require_unchanged(
    job: CloudJob, source: Source, before: Before, plan: Plan, *, hashes: dict[str, str], tell: OnTransfer
) -> None:
    """The tripwire: borg writes a segment once, so one that is not what was copied is damage, here or there.

    With a remote that has hashes, both sides are compared. Without, what is here is compared with the SHA-256 that
    the last listing noted when this content was copied. Raises SegmentChanged.
    """
    changed = resized(source, before.files, plan.common)
    same_size = [name for name in plan.common if name not in changed]
    if hashes:
        known = parse_listing(before.listings[-1], _listing(job, before.listings[-1])) if before.listings else None
        noted = known.sha256 if known else dict[str, str]()
        changed += [name for name in same_size if noted.get(name, hashes[name]) != hashes[name]]
    elif same_size:
        found = job.remote.compare(job.folder, CURRENT, same_size, way="hash", on_transfer=tell)
        changed += sorted(found)
    if changed:
        raise SegmentChanged(
            f"{len(changed)} segments of {job.repository.location} are not what was copied before.",
            evidence="\n".join(changed[:20]),
            remedy="borg writes a segment once: this is damage, here or on the remote. Nothing was copied. "
            "Run `vmborg check --verify-data`; if that is good, it is the copy that is damaged: sync to a new folder.",
        )


def _listing(job: CloudJob, stamp: str) -> str:
    return job.remote.read(f"{LISTINGS}/{stamp}{_JSON}")


def _transfer(job: CloudJob, source: Source, tell: OnTransfer) -> None:
    """Segments first, then the files that refer to them; what goes or is replaced moves to this copy's history."""
    history = f"{HISTORY}/{job.stamp}"
    # Sizes are enough for segments: those that both sides have were compared, the others are new.
    options = ["--size-only", *(f"--exclude=/{name.removeprefix(DATA)}" for name in source.uncommitted)]
    job.remote.sync(job.folder / "data", f"{CURRENT}/data", backup=f"{history}/data", options=options, on_transfer=tell)
    # The others are few, change with every transaction, and some keep their size.
    others = ["--ignore-times", "--exclude=/data/**", "--exclude=/lock.exclusive/**", "--exclude=/lock.roster"]
    job.remote.sync(job.folder, CURRENT, backup=history, options=others, on_transfer=tell)


def _prove(job: CloudJob, source: Source, plan: Plan, *, abilities: Abilities, tell: OnTransfer) -> str:
    """Every file is there with its size, and the content of what was copied is compared. Raises CopyDiffers."""
    there = job.remote.files(CURRENT)
    wrong = [name for name, size in source.files.items() if there.get(name) != size]
    wrong += [f"{name} (too much)" for name in there if name not in source.files]
    way, copied = _way(abilities), [*plan.new, *source.others]
    try:
        found = job.remote.compare(job.folder, CURRENT, copied, way=way, on_transfer=tell)
    except CloudError:
        if way != "cryptcheck":
            raise
        way = "download"  # crypt over a remote that has no hashes either
        found = job.remote.compare(job.folder, CURRENT, copied, way=way, on_transfer=tell)
    wrong += [f"{name}: {how}" for name, how in found.items()]
    if wrong:
        raise CopyDiffers(
            f"The copy on {job.settings.remote} is not equal to the repository.",
            evidence="\n".join(sorted(wrong)[:20]),
            remedy="Copy again; the generations before can be fetched. If it happens twice, look at the remote.",
        )
    return way


def _way(abilities: Abilities) -> str:
    if abilities.hashes:
        return "hash"
    return "cryptcheck" if abilities.kind == "crypt" else "download"


def _expire(job: CloudJob, before: Before) -> tuple[str, ...]:
    """Remove generations that are older than history_days, and the history that only they needed."""
    known = [*before.listings, job.stamp]
    listings, histories = outdated(known, before.histories, now=job.now, days=job.settings.history_days)
    for stamp in listings:  # first: a listing without its history would promise what is not there
        job.remote.delete_file(f"{LISTINGS}/{stamp}{_JSON}")
    for stamp in histories:
        job.remote.purge(f"{HISTORY}/{stamp}")
    return tuple(listings)


def _result(
    job: CloudJob,
    source: Source,
    plan: Plan,
    *,
    proof: str = "",
    expired: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Copied:
    return Copied(
        name=job.name,
        repository=job.settings.repository,
        remote=job.settings.remote,
        stamp=job.stamp,
        files=len(plan.new) + len(source.others),
        size=plan.size,
        deleted=len(plan.gone),
        total=len(source.segments),
        total_size=source.size,
        proof=proof,
        expired=expired,
        notes=notes,
    )
