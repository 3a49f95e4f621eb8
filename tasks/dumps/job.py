"""What every step of one host's pull shares: configuration, connection, tree, names."""

import logging
import secrets
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.borg.names import dump_archive_name, unfinished
from infra.config.dumps import DumpHost
from infra.config.models import Config
from infra.dumps.manifest import Dump, DumpManifest
from infra.dumps.source import Role, Source
from infra.dumps.tree import Tree
from infra.errors import DomainBusy, DumpBusy, DumpIncomplete, ManifestError
from infra.journal.locks import domain_lock
from infra.ssh.endpoint import Endpoint
from tasks.destinations import Destinations, open_all
from tasks.dumps.hosts import endpoint, find_host, password_of
from tasks.job import load_config

logger = logging.getLogger("vmborg.dumps")


@dataclass(frozen=True)
class DumpJob:
    """One host's pull in the making. The host's lock is held as long as it exists."""

    config: Config
    name: str
    host: DumpHost
    endpoint: Endpoint
    destinations: Destinations  # that of the host's `repository` first, then the replicas
    tree: Tree
    previous: DumpManifest | None
    started: datetime
    accept_smaller: bool
    vm: str  # the VM whose backup this precedes; "" for none

    @property
    def archive(self) -> str:
        """The name the archive gets when it is proven whole."""
        return dump_archive_name(self.name, self.started)

    @property
    def unfinished_archive(self) -> str:
        """The name it has until then."""
        return unfinished(self.archive)

    def password(self, source: Source) -> str | None:
        """What the source's database user logs in with; None without one. Raises ConfigError."""
        return password_of(self.host, self.name, source)

    def last_good(self, source: Source) -> tuple[Dump, ...]:
        """What the newest tree holds of a source."""
        found = self.previous.source(source.label) if self.previous else None
        return found.dumps if found else ()

    def last_good_of(self, source: Source, role: Role, *, database: str = "", path: str = "") -> Dump | None:
        """One dump of the newest tree; a file is known by its path, a database by its name."""
        for dump in self.last_good(source):
            same = dump.path == path if role is Role.FILE else dump.database == database
            if dump.role is role and same:
                return dump
        return None


@contextmanager
def dump_job(host: str, config_path: str | None, *, accept_smaller: bool = False, vm: str = "") -> Generator[DumpJob]:
    """Open what one host's pull needs and hold the host's lock; the tree in the making goes away at the end.

    Raises ConfigError, UsageError, DumpBusy, LoginRefused, HostUnreachable (the address of a VM), StorageError.
    """
    config = load_config(config_path)
    settings = find_host(config, host)
    with ExitStack() as held:
        try:
            held.enter_context(domain_lock(config.state.locks, f"dump.{host}", host))
        except DomainBusy as error:
            raise DumpBusy(
                f"The dump host {host!r} is being pulled already.",
                evidence=error.evidence,
                remedy="Wait for that pull to end, or end it; the lock goes with its process.",
            ) from error
        tree = Tree(config.state.dumps / host, secrets.token_hex(4))
        tree.begin()
        held.callback(tree.drop)
        yield DumpJob(
            config=config,
            name=host,
            host=settings,
            endpoint=endpoint(config, host),
            destinations=open_all(config, settings),
            tree=tree,
            previous=_previous(tree),
            started=datetime.now(UTC).replace(microsecond=0),
            accept_smaller=accept_smaller,
            vm=vm,
        )


def _previous(tree: Tree) -> DumpManifest | None:
    try:
        return tree.previous()
    except ManifestError as error:
        logger.warning("the last tree cannot be read, so nothing of it is taken over: %s", error.brief)
        return None


def require_floor(job: DumpJob, source: Source, *, what: str, count: int, last: int) -> None:
    """A dump much smaller than the last one is not believed. Raises DumpIncomplete."""
    if job.accept_smaller or count >= last * source.floor:
        return
    raise DumpIncomplete(
        f"The dump of {what} is much smaller than the last one.",
        evidence=f"{count} bytes, the last one {last}, the floor is {source.floor:g} of it",
        remedy=f"If that is right: vmborg dumps pull {job.name} --accept-smaller. Else look at the database.",
    )
