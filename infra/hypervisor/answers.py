"""What libvirt answers of a running domain, in words."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockJob:
    """A block job as libvirt reports it. Equal `cur` and `end` do not mean ready: the live <mirror> does."""

    kind: str  # pull, copy, commit, active commit, backup
    cur: int  # bytes done
    end: int  # bytes in all, so far
    bandwidth: int  # MiB a second; 0: unlimited


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A mounted file system, as the guest agent reports it."""

    mountpoint: str
    device: str
    kind: str
    disks: tuple[str, ...]  # disk targets it lies on; empty when the agent does not know
