"""The configuration: what may be written in vmborg.yaml, what it means and what holds when it is left out.

The descriptions are the reference: `vmborg config generate` and `vmborg config schema` print them.
Durations are written 90s, 15m, 26h, 7d; sizes 500MiB, 1GiB.
"""

import socket
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    field_serializer,
    model_validator,
)

from infra.config.alerts import AlertsConfig
from infra.config.cloud import CloudConfig, CloudName
from infra.config.drills import DrillsConfig
from infra.config.dumps import EXAMPLE_HOST, DumpsConfig
from infra.config.fields import (
    AbsolutePath,
    Compression,
    Location,
    RepositoryName,
    Seconds,
    Size,
    Text,
)
from infra.config.policy import VmPolicy
from infra.config.schedules import SchedulesConfig
from infra.config.secret_ref import SecretRef
from infra.config.section import Section
from infra.config.upkeep import CheckConfig, RetiredConfig
from infra.model import StateDir

_UNENCRYPTED = "none"
_SSH = "ssh"


def missing_passphrase(encryption: str) -> str:
    """What is wrong when this mode of encryption has no passphrase, "" for none."""
    if encryption == _UNENCRYPTED:
        return ""
    return f"encryption {encryption} needs a passphrase, e.g. {{file: /etc/vmborg/passphrase}}"


class HypervisorConfig(Section):
    """The host whose VMs this file is about."""

    name: Text = Field(
        default_factory=socket.gethostname,
        description="Its name in archives, deployments and reports; the host name if left out.",
    )
    uri: Text = Field(
        default="qemu:///system", description="libvirt's connection URI. vmborg must run where the disks are."
    )
    overlay_dir: AbsolutePath = Field(
        default=Path("/var/lib/libvirt/images"),
        description="Where overlays of block devices go. Those of image files always lie beside their base.",
    )


class RepositoryConfig(Section):
    """A borg repository."""

    location: Location = Field(
        description="An absolute path, or ssh://[user@]host[:port]/path.", examples=["/srv/borg/main"]
    )
    encryption: Literal[
        "repokey-blake2",
        "repokey",
        "keyfile-blake2",
        "keyfile",
        "authenticated-blake2",
        "authenticated",
        "none",
    ] = Field(
        default="repokey",
        description="borg's encryption mode, used when `vmborg init` creates it. repokey is the fastest on processors "
        "with SHA instructions, repokey-blake2 on others.",
    )
    passphrase: SecretRef | None = Field(
        default=None,
        description="Where the passphrase is kept: {file: …}, {command: […]}, {env: …} or {credential: …}.",
        examples=[{"file": "/etc/vmborg/passphrase"}],
    )
    compression: Compression = Field(
        default="lz4", description="borg's compression of new data: lz4 is fast, `zstd,3` stores about 13 % less."
    )
    lock_wait: Seconds = Field(default=600, description="How long to wait for another borg's lock.")
    append_only: bool = Field(
        default=False,
        description="Declares that the server refuses deletions, which no client can see: nothing is pruned.",
    )
    maintainer: Text | None = Field(
        default=None,
        description="The only hypervisor (`hypervisor.name`) that prunes it; this one if left out.",
        examples=["kvm1"],
    )
    maintainer_key: AbsolutePath | None = Field(
        default=None,
        description="A private key for SSH: only a host that has this file prunes the repository, and does it with "
        "this key. append_only speaks of the other keys then.",
    )
    remote_path: Text | None = Field(
        default=None,
        description="borg's path on the server, if not on its PATH.",
        examples=["/usr/local/bin/borg"],
    )
    capacity: Size | None = Field(
        default=None,
        description="What the server gives this repository, such as the quota of a storage box: it cannot be asked. "
        "The days left and the alert of a full repository go by it. For example 2TiB.",
    )
    rsh: Text | None = Field(
        default=None,
        description="The SSH command; ssh -oBatchMode=yes if left out.",
        examples=["ssh -i /etc/vmborg/id_ed25519"],
    )

    @property
    def is_remote(self) -> bool:
        """Whether SSH leads to it; else it is a folder of this host."""
        return self.location.startswith("ssh://")

    @field_serializer("rsh", when_used="json-unless-none")
    def _program_alone(self, rsh: str) -> str:
        program, blank, _ = rsh.strip().partition(" ")
        return f"{program} …" if blank else program  # an argument may be a password (sshpass -p)

    @model_validator(mode="after")
    def _passphrase_where_needed(self) -> "RepositoryConfig":
        problem = missing_passphrase(self.encryption) if self.passphrase is None else ""
        if problem:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _capacity_of_a_server(self) -> "RepositoryConfig":
        if self.capacity is not None and not self.is_remote:
            raise ValueError("capacity is for a repository that SSH leads to; here the file system is asked")
        return self

    @model_validator(mode="after")
    def _key_for_ssh(self) -> "RepositoryConfig":
        if self.maintainer_key is not None and not self.is_remote:
            raise ValueError("maintainer_key is for a repository that SSH leads to")
        if self.maintainer_key is not None and Path((self.rsh or _SSH).split()[0]).name != _SSH:
            raise ValueError("maintainer_key needs an rsh that begins with ssh: the key becomes an option of it")
        return self


def _empty_override(value: Any) -> Any:
    return {} if value is None else value


class VmsConfig(Section):
    """Which VMs are backed up, and how. What is not named here is covered."""

    parallel: int = Field(
        default=1, ge=1, description="How many VMs of this host a deployment backs up at the same time."
    )
    defaults: VmPolicy = Field(default_factory=VmPolicy, description="The policy of every VM.")
    exclude: tuple[Text, ...] = Field(
        default=(),
        description="Names or globs (* ? [ ]) of VMs that are not backed up.",
        examples=[["scratch-*"]],
    )
    overrides: dict[str, Annotated[VmPolicy, BeforeValidator(_empty_override)]] = Field(
        default_factory=dict[str, VmPolicy],
        description="Per VM name: the keys of `defaults` that differ for it.",
        examples=[{"db01": {"quiesce": "require", "exclude_disks": ["vdc"]}}],
    )

    @field_serializer("overrides")
    def _only_what_is_written(self, overrides: dict[str, VmPolicy]) -> dict[str, Any]:
        return {vm: policy.written() for vm, policy in overrides.items()}


class Config(Section):
    """Configuration of vmborg."""

    state_dir: AbsolutePath = Field(
        default=Path("/var/lib/vmborg"),
        description="vmborg's own files: journal, locks, borg's caches, exported keys.",
        examples=["/var/lib/vmborg"],
    )
    hypervisor: HypervisorConfig = Field(
        default_factory=HypervisorConfig, description="The host whose VMs this file is about."
    )
    repositories: dict[RepositoryName, RepositoryConfig] = Field(
        min_length=1, description="borg repositories by name.", examples=[{"main": {}}]
    )
    vms: VmsConfig = Field(default_factory=VmsConfig, description="Which VMs are backed up, and how.")
    dumps: DumpsConfig = Field(
        default_factory=DumpsConfig,
        description="Dumps of databases, pulled over SSH. docs/design.md has the keys, docs/dumps.md the sources.",
        examples=[{"hosts": {"db01": EXAMPLE_HOST}}],
    )
    retired: RetiredConfig = Field(default_factory=RetiredConfig, description="What is kept of what is gone.")
    check: CheckConfig = Field(default_factory=CheckConfig, description="How the health of repositories is checked.")
    drills: DrillsConfig = Field(default_factory=DrillsConfig, description="How restores are tried: docs/drills.md.")
    cloud: dict[CloudName, CloudConfig] = Field(
        default_factory=dict[str, CloudConfig],
        description="Copies of repositories on remotes of rclone's, by name.",
        examples=[{"offsite": {}}],
    )
    schedules: SchedulesConfig = Field(
        default_factory=SchedulesConfig, description="When the deployments of `vmborg deploy` run."
    )
    alerts: AlertsConfig = Field(
        default_factory=AlertsConfig, description="Who is told when something is wrong: docs/alerts.md."
    )

    @property
    def state(self) -> StateDir:
        """The folders below `state_dir`."""
        return StateDir(self.state_dir)

    def is_excluded(self, vm: str) -> str | None:
        """The entry of `vms.exclude` that leaves this VM out, or None."""
        return next((glob for glob in self.vms.exclude if vm == glob or fnmatchcase(vm, glob)), None)

    def required_exclusions(self, vm: str) -> tuple[str, ...]:
        """The disks to leave out that this VM must have: those of its override. The defaults name other VMs' too."""
        override = self.vms.overrides.get(vm)
        return override.exclude_disks if override else ()

    def policy(self, vm: str) -> VmPolicy:
        """The policy of the VM of this name: the defaults with its override."""
        override = self.vms.overrides.get(vm)
        return self.vms.defaults.overridden_by(override) if override else self.vms.defaults
