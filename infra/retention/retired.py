"""What becomes of a source that is gone: active, retired, thinned, forgotten. Pure.

A source belongs to the hypervisor that its newest archive names. Only that hypervisor, and only when its libvirt
answers, may call it retired; what another one sees, or does not see, means nothing. The date is remembered as a mark
in the repository. An archive that is newer than the mark, on whatever host it was made, undoes it.
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


def may_retire(sight: Sight, *, uuid: str, vm: str, owner: str) -> bool:
    """Whether this hypervisor finds that the source is gone, and has the right to say so."""
    if sight.present is None or not owner or owner != sight.hypervisor:
        return False
    return uuid not in sight.present and vm not in sight.configured


def is_back(sight: Sight, uuid: str) -> bool:
    """Whether this hypervisor sees the source."""
    return sight.present is not None and uuid in sight.present


def stage(since: datetime | None, *, newest: datetime, policy: RetiredPolicy, now: datetime) -> Stage:
    """Where a source stands that was marked at `since` (None: never) and whose newest archive is of `newest`."""
    if since is None or newest > since:
        return Stage.ACTIVE
    age = now - since
    if policy.forget_after is not None and age >= policy.forget_after:
        return Stage.FORGOTTEN
    return Stage.THINNED if age >= policy.grace else Stage.RETIRED
