"""What becomes of a source that is gone: active, retired, thinned, forgotten. Pure.

A source belongs to the hypervisor that its newest archive names. Only that hypervisor may call it retired: a VM when
its libvirt answers and does not know it, a dump host when its configuration does not name it. What another one sees, or
does not see, means nothing. The date is remembered as a mark in the repository. An archive that is newer than the mark
undoes it; a VM's on whatever host it was made.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Stage(StrEnum):
    """Where a source stands."""

    ACTIVE = "active"
    RETIRED = "retired"  # gone; its archives are whole for the length of the grace
    THINNED = "thinned"  # gone for longer: the newest few are left
    FORGOTTEN = "forgotten"  # gone for so long that a policy lets all of them go


@dataclass(frozen=True, slots=True)
class RetiredPolicy:
    """How long what of a retired source is kept."""

    grace: timedelta
    keep: int  # archives that are left after the grace
    forget_after: timedelta | None = None  # counted from the first day; never without a policy


@dataclass(frozen=True, slots=True)
class Sight:
    """What one hypervisor knows about the sources of a repository."""

    hypervisor: str  # the name in archives
    present: Collection[str] | None  # UUIDs that its libvirt knows; None when it does not answer
    configured: Collection[str] = ()  # names of VMs that its configuration speaks of
    dump_hosts: Collection[str] | None = None  # those of its configuration; None when it is not asked


def may_retire(sight: Sight, *, uuid: str, vm: str, owner: str) -> bool:
    """Whether this hypervisor finds that the VM is gone, and has the right to say so."""
    if sight.present is None or not owner or owner != sight.hypervisor:
        return False
    return uuid not in sight.present and vm not in sight.configured


def is_back(sight: Sight, uuid: str) -> bool:
    """Whether this hypervisor sees the VM."""
    return sight.present is not None and uuid in sight.present


def may_retire_host(sight: Sight, *, host: str, owner: str) -> bool:
    """Whether this hypervisor pulled the dump host and is not to pull it any more."""
    if sight.dump_hosts is None or not owner or owner != sight.hypervisor:
        return False
    return host not in sight.dump_hosts


def host_is_back(sight: Sight, *, host: str, owner: str) -> bool:
    """Whether the dump host stands in the configuration of the hypervisor that pulls it."""
    return owner == sight.hypervisor and host in (sight.dump_hosts or ())


def stage(since: datetime | None, *, newest: datetime, policy: RetiredPolicy, now: datetime) -> Stage:
    """Where a source stands that was marked at `since` (None: never) and whose newest archive is of `newest`."""
    if since is None or newest > since:
        return Stage.ACTIVE
    age = now - since
    if policy.forget_after is not None and age >= policy.forget_after:
        return Stage.FORGOTTEN
    return Stage.THINNED if age >= policy.grace else Stage.RETIRED
