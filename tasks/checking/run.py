"""Check one repository: its key, its segments, a sample of its archives. Plain functions; flows/check.py runs them."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from infra.borg.client import ArchiveInfo, Repository
from infra.borg.messages import PercentProgress
from infra.borg.upkeep import check_everything, check_segments
from infra.config.models import Config
from infra.errors import ArchiveIncomplete, RepositoryDamaged, StorageError, VmborgError
from infra.errors_upkeep import KeyMismatch
from tasks.catalogue import vm_archives
from tasks.checking.dumps import read_dump_sample
from tasks.checking.sample import Sample, read_sample
from tasks.dumps.catalogue import dump_archives
from tasks.initialise import export_key
from tasks.repositories import open_repository
from tasks.retention.sources import dump_id
from tasks.upkeep import facts_of, moment, remember, stamp

logger = logging.getLogger("vmborg.check")

SEGMENTS = "segments"
VERIFIED = "everything, data verified"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at in one repository, and how that ended. Seconds."""

    repository: str
    location: str
    kind: str = ""  # what borg checked
    seconds: float = 0.0
    key: str = ""  # what was found about its exported key
    samples: tuple[Sample, ...] = ()
    error: VmborgError | None = None


def check_key(config: Config, name: str, repository: Repository) -> str:
    """Compare the exported key with the repository's own; export it if it never was. What was found.

    Raises KeyMismatch, StorageError, BorgError's subtypes.
    """
    if config.repositories[name].encryption == "none":
        return "not encrypted"
    exported = config.state.keys / f"{name}.key"
    if not exported.exists():
        export_key(repository, name, exported)
        return f"exported now to {exported}: store it elsewhere"
    fresh = export_key(repository, name, exported.with_name(f"{name}.check"))
    try:
        same = fresh.read_bytes() == exported.read_bytes()
    except OSError as error:
        raise StorageError(f"The key {exported} cannot be read.", evidence=str(error)) from error
    finally:
        fresh.unlink(missing_ok=True)
    if not same:
        raise KeyMismatch(
            f"The exported key of repository {name!r} is not the one that the repository has.",
            evidence=f"{exported} differs from what borg key export writes",
            remedy=f"If the passphrase was changed, move {exported} away, run `vmborg init`, and store the new key "
            "elsewhere. Else find out which repository this is.",
        )
    return "the exported key is the repository's"


def check_storage(
    config: Config, name: str, *, verify_data: bool, now: datetime, on_progress: Callable[[PercentProgress], None]
) -> Checked:
    """borg's own check: a slice of the segments, or with `verify_data` every byte. The outcome is remembered.

    Raises RepositoryDamaged, and BorgError's subtypes.
    """
    repository, begun = open_repository(config, name), time.monotonic()
    kind = VERIFIED if verify_data else SEGMENTS
    try:
        key = check_key(config, name, repository)
        if verify_data:
            check_everything(repository, verify_data=True, on_progress=on_progress)
        else:
            check_segments(repository, seconds=config.check.slice, on_progress=on_progress)
    except RepositoryDamaged as error:
        _remember_damage(config, name, error, now)
        raise
    facts = {"checked": stamp(now), "check_good": True, "check_said": ""}
    remember(config.state, name, **facts, **({"verified": stamp(now)} if verify_data else {}))
    return Checked(name, config.repositories[name].location, kind, time.monotonic() - begun, key)


def sample_archives(config: Config, name: str, *, now: datetime) -> tuple[Sample, ...]:
    """Read the newest finished archive of the VMs and dump hosts that were not read for the longest time.

    Raises ArchiveIncomplete, ManifestError, RepositoryDamaged and other errors of borg's; the outcome is remembered.
    """
    repository = open_repository(config, name)
    done: dict[str, str] = dict(facts_of(config.state, name).get("sampled", {}))
    newest = _newest(name, repository.archives())
    samples: list[Sample] = []
    for source in sorted(newest, key=lambda each: (done.get(each, ""), newest[each][0]))[: config.check.samples]:
        archive, read = newest[source]
        logger.info("reading %s back", archive)
        try:
            samples.append(read(repository, archive))
        except (ArchiveIncomplete, RepositoryDamaged) as error:
            _remember_damage(config, name, error, now)
            raise
        done[source] = stamp(now)
    remember(config.state, name, sampled={source: when for source, when in done.items() if source in newest})
    return tuple(samples)


def _newest(name: str, infos: Sequence[ArchiveInfo]) -> dict[str, tuple[str, Callable[[Repository, str], Sample]]]:
    """The newest finished archive of each source, and what reads it; `infos` are the oldest first."""
    found: dict[str, tuple[str, Callable[[Repository, str], Sample]]] = {}
    for vm in vm_archives(name, infos):
        if vm.finished:
            found[vm.uuid] = (vm.archive, read_sample)
    for dump in dump_archives(name, infos):
        if dump.finished:
            found[dump_id(dump.host, dump.hypervisor)] = (dump.archive, read_dump_sample)
    return found


def _remember_damage(config: Config, name: str, error: VmborgError, now: datetime) -> None:
    remember(config.state, name, checked=stamp(now), check_good=False, check_said=error.brief)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the last check of a repository ended."""

    when: datetime | None  # None: never checked on this host
    good: bool
    said: str = ""


def last_check(config: Config, name: str) -> Verdict:
    """What is remembered of the last check. Raises JournalError."""
    facts = facts_of(config.state, name)
    when = moment(facts.get("checked"))
    return Verdict(when, bool(when and facts.get("check_good")), str(facts.get("check_said", "")))
