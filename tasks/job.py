"""What every step of one backup run shares: configuration, connections, names."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from infra.borg.names import archive_name, unfinished
from infra.config.load import load
from infra.config.models import Config, VmPolicy
from infra.errors import DomainNotFound, UsageError
from infra.hypervisor.connection import Domain, Hypervisor
from infra.journal.locks import domain_lock
from infra.journal.store import Journal
from infra.model import StateDir
from tasks.boot.known import lasting, passing
from tasks.destinations import Destinations, open_all
from tasks.state_dir import make_state_dir


@dataclass(frozen=True)
class BackupJob:
    """One VM's backup in the making. The domain's lock is held as long as it exists."""

    config: Config
    policy: VmPolicy
    hypervisor: Hypervisor
    domain: Domain
    journal: Journal
    destinations: Destinations  # that of the policy's `repository` first, then the replicas
    state: StateDir
    run_id: str
    started: datetime
    uuid: str
    name: str
    dumps: tuple[str, ...] = ()  # archives of dumps taken just before, of the same recovery point
    dump_problems: tuple[str, ...] = ()  # what failed of those that were wanted

    @property
    def archive(self) -> str:
        """The name the archive gets when it is proven whole."""
        return archive_name(self.uuid, self.name, self.started)

    @property
    def unfinished_archive(self) -> str:
        """The name it has until then."""
        return unfinished(self.archive)

    @property
    def staging(self) -> Path:
        """Where the metadata directory of the archive is put together; the archive holds what is below it."""
        return self.state.runs / self.uuid


def load_config(path: str | None) -> Config:
    """The configuration from `path`, or from the usual places. Raises ConfigError, StorageError."""
    config = load(Path(path) if path else None)
    make_state_dir(config.state)
    return config


@contextmanager
def backup_job(vm: str, config_path: str | None) -> Generator[BackupJob]:
    """Open everything one VM's backup needs and hold the domain's lock.

    Raises ConfigError, HypervisorUnreachable, DomainNotFound, UsageError (the VM is excluded), DomainBusy (another
    run has it).
    """
    config = load_config(config_path)
    state = StateDir(config.state_dir)
    with Hypervisor.open(config.hypervisor.uri) as hypervisor:
        domain = hypervisor.find(vm)
        name, uuid = domain.name, domain.uuid
        _refuse_excluded(config, name, uuid)
        policy = config.policy(name)
        with domain_lock(state.locks, uuid, name):
            yield BackupJob(
                config=config,
                policy=policy,
                hypervisor=hypervisor,
                domain=domain,
                journal=Journal(state.journal),
                destinations=open_all(config, policy),
                state=state,
                run_id=secrets.token_hex(4),
                started=datetime.now(UTC).replace(microsecond=0),
                uuid=uuid,
                name=name,
            )


def _refuse_excluded(config: Config, name: str, uuid: str) -> None:
    why = passing(config).get(uuid)
    if why is not None:
        raise UsageError(
            f"The VM {name!r} is not one to back up.",
            evidence=why,
            remedy=f"Let it stand on files of its own first: vmborg boot --keep DIR {name}",
        )
    pattern = config.is_excluded(name)
    if pattern is not None:
        raise UsageError(
            f"The VM {name!r} is excluded from backups.",
            evidence=f"vms.exclude holds {pattern!r}",
            remedy="Take the pattern out of vms.exclude, or leave this VM alone.",
        )


def covered_names(config: Config, hypervisor: Hypervisor) -> list[str]:
    """Every VM of this host that the configuration does not exclude, by name; none that runs out of an archive."""
    names: list[str] = []
    for domain in lasting(config, hypervisor.domains()):
        try:
            name = domain.name
        except DomainNotFound:  # it went away between the listing and now; nothing is left to back up
            continue
        if config.is_excluded(name) is None:
            names.append(name)
    return sorted(names)
