"""Fetch a copy, or what it was at a date, into an empty folder, and prove it with borg."""

import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from infra.borg.client import Repository
from infra.borg.upkeep import check_everything
from infra.config.models import Config
from infra.errors import RepositoryDamaged, TargetExists
from infra.errors_upkeep import CopyDiffers
from infra.rclone.client import local_hashes
from tasks.cloud.copy import Teller, look_there
from tasks.cloud.job import CloudJob, open_job
from tasks.cloud.layout import HISTORY, LISTINGS, Listing, choose, origins, parse_listing
from tasks.repositories import open_repository
from tasks.upkeep import file_sizes


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched; bytes."""

    name: str
    repository: str
    directory: Path
    stamp: str
    files: int
    size: int
    archives: int


def fetch_copy(
    config: Config, name: str, directory: Path, *, at: datetime | None, now: datetime, teller: Teller
) -> Fetched:
    """Fetch a generation to `directory`, which must be new or empty, and check it with borg.

    What does not prove whole stays there for a person to look at. Raises TargetExists, GenerationNotFound,
    CopyDiffers, other errors of the remote's, BorgError's subtypes.
    """
    _require_empty(directory)
    job = open_job(config, name, now)
    there = look_there(job)
    stamp = choose(there.listings, at)
    listing = parse_listing(stamp, job.remote.read(f"{LISTINGS}/{stamp}.json"))
    histories = {each: set(job.remote.files(f"{HISTORY}/{each}")) for each in there.histories if each > stamp}
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder, names in origins(listing, histories).items():
        job.remote.fetch(folder, names, directory, teller("fetching"))
    _require_whole(job, listing, directory)
    archives = _check(config, job, directory)
    return Fetched(name, job.settings.repository, directory, stamp, len(listing.files), listing.size, archives)


def _require_empty(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise TargetExists(
            f"{directory} is not an empty folder.",
            evidence="a copy is fetched into a folder of its own",
            remedy="Name another one with --to.",
        )


def _require_whole(job: CloudJob, listing: Listing, directory: Path) -> None:
    found = file_sizes(directory)
    wrong = [name for name, size in listing.files.items() if found.get(name) != size]
    same = [name for name in listing.sha256 if name not in wrong]
    if same:
        hashes = local_hashes(job.remote.place, directory, same)
        wrong += [name for name in same if hashes.get(name) != listing.sha256[name]]
    if wrong:
        raise CopyDiffers(
            f"What was fetched from {job.settings.remote} is not what was copied there.",
            evidence="\n".join(sorted(wrong)[:20]),
            remedy="Fetch it again, or an earlier date with --at. Files are missing or damaged on the remote.",
        )


def _check(config: Config, job: CloudJob, directory: Path) -> int:
    """Let borg check it, with caches of its own: ours know the original. How many archives it has."""
    settings = config.repositories[job.settings.repository]
    ours = open_repository(config, job.settings.repository)
    base = Path(tempfile.mkdtemp(prefix="vmborg-fetched-"))
    try:
        keys = ours.target.base_dir / ".config" / "borg" / "keys"
        if keys.is_dir():
            shutil.copytree(keys, base / ".config" / "borg" / "keys")
        fetched = Repository(
            name=job.settings.repository,
            location=str(directory),
            passphrase=ours.target.passphrase,
            encryption=settings.encryption,
            compression=settings.compression,
            base_dir=base,
            lock_wait=settings.lock_wait,
        )
        try:
            check_everything(fetched, verify_data=False)
        except RepositoryDamaged as error:
            raise CopyDiffers(
                f"borg finds damage in what was fetched from {job.settings.remote}.",
                evidence=error.evidence,
                remedy="Take an earlier date with --at, and look at the remote.",
            ) from error
        return len(fetched.archives())
    finally:
        shutil.rmtree(base, ignore_errors=True)
