"""Which databases are dumped, from which hosts, and how vmborg gets there.

The sources are described in infra/dumps/kinds, each kind beside the commands that it runs.
"""

from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from infra.config.fields import AbsolutePath, Duration, Seconds, Text
from infra.config.retention import Retention
from infra.config.secret_ref import SecretRef
from infra.config.section import Section
from infra.dumps.kinds import AnySource

EXAMPLE_HOST: dict[str, object] = {
    "address": "10.0.0.5",
    "user": "dump",
    "key": "/etc/vmborg/dump_ed25519",
    "sources": [{"kind": "postgresql"}, {"kind": "files", "name": "conf", "paths": ["/etc"]}],
}
_LONGEST_NAME = 100


def _host_name(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError("a host's name must be one line of printable text, not longer than 100 characters")
    if name in {".", ".."} or PurePosixPath(name).name != name:
        raise ValueError("a host's name names a folder: it must hold no slash")
    return name


def _host_key(key: str) -> str:
    if len(key.split()) not in {2, 3}:
        raise ValueError("must be a public host key such as `ssh-ed25519 AAAA…`")
    return key


HostName = Annotated[str, AfterValidator(_host_name)]
HostKey = Annotated[Text, AfterValidator(_host_key)]
Port = Annotated[int, Field(gt=0, lt=65536)]


class JumpHost(Section):
    """A host on the way to a dump host."""

    address: Text = Field(description="Name or IP address of the jump host.")
    port: Port = Field(default=22, description="Its port.")
    user: Text = Field(default="dump", description="The login there; it needs nothing but to forward connections.")
    key: AbsolutePath | None = Field(default=None, description="The private key; that of the dump host if left out.")
    host_key: HostKey | None = Field(default=None, description="Its host key; else `vmborg dumps trust` pins it.")


class DumpHost(Section):
    """A host whose databases are dumped."""

    address: Text | None = Field(default=None, description="Name or IP address; may be left out with `vm`.")
    vm: Text | None = Field(
        default=None,
        description="The VM that this host is. Without `address`, its agent or libvirt's leases are asked for one.",
    )
    port: Port = Field(default=22, description="Its port.")
    user: Text = Field(default="dump", description="The login there.")
    key: AbsolutePath | None = Field(default=None, description="The private key; those of the SSH agent if left out.")
    key_passphrase: SecretRef | None = Field(default=None, description="What opens the private key.")
    host_key: HostKey | None = Field(
        default=None, description="Its pinned host key, as `ssh-ed25519 AAAA…`; else `vmborg dumps trust` pins it."
    )
    jump: JumpHost | None = Field(default=None, description="A host to go through.")
    connect_timeout: Seconds = Field(default=15, description="How long connecting and logging in may take each.")
    stall_timeout: Seconds = Field(default=300, description="A dump of which no byte comes for so long is given up.")
    deadline: Seconds = Field(
        default=8 * 3600, description="How long one dump may take, and its archive in one repository."
    )
    repository: str = Field(default="main", description="The repository, by its name above.")
    replicas: tuple[Text, ...] = Field(
        default=(), description="Further repositories that every archive is written to, each by itself."
    )
    retention: Retention = Field(
        default_factory=lambda: Retention(daily=7, weekly=4, monthly=6),
        description="How many archives are kept. A rule that is not named here keeps none.",
    )
    objective: Duration = Field(
        default=timedelta(hours=26), description="`status` is critical when the last good archive is older than this."
    )
    before_vm_backup: bool = Field(
        default=False, description="Dump it before each backup of its `vm`: both make one recovery point."
    )
    passwords: dict[str, SecretRef] = Field(
        default_factory=dict[str, SecretRef],
        description="For each source by its name: where the password of its database user is kept.",
    )
    sources: tuple[AnySource, ...] = Field(min_length=1, description="What is dumped; see docs/dumps.md.")

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository that an archive goes to: its own, then the replicas."""
        return (self.repository, *self.replicas)

    @model_validator(mode="after")
    def _fits_together(self) -> "DumpHost":
        if self.address is None and self.vm is None:
            raise ValueError("must have an address, or the vm whose address is to be asked for")
        if self.before_vm_backup and self.vm is None:
            raise ValueError("before_vm_backup needs vm: the VM whose backup it precedes")
        labels = [source.label for source in self.sources]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}: give one another `name`")
        takes = {source.label for source in self.sources if source.login_variable}
        for label in self.passwords:
            if label not in takes:
                known = ", ".join(sorted(takes)) or "none"
                raise ValueError(f"passwords names {label!r}; sources that take a password: {known}")
        return self


class DumpsConfig(Section):
    """Dumps of databases, pulled over SSH."""

    parallel: int = Field(default=2, gt=0, description="How many hosts are dumped at the same time.")
    hosts: dict[HostName, DumpHost] = Field(
        default_factory=dict[str, DumpHost],
        description="Hosts by name.",
    )
