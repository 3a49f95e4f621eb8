"""Thawing a guest, and knowing that it is thawed.

A thaw that returns proves nothing: it also returns 0 on a guest that is not frozen, and an agent that was
stopped while we asked it to freeze does so when it goes on, after our thaw has failed (tried: libvirt 9.0,
agent 7.2). The agent takes its commands one after another, so an answer to `guest-fsfreeze-status` that
came after the freeze was sent is the proof.
"""

import logging
import time
from dataclasses import dataclass

from infra.errors import (
    AgentUnresponsive,
    DomainNotFound,
    DomainStateChanged,
    HypervisorError,
    ThawUnconfirmed,
)
from infra.hypervisor.domain import Domain

logger = logging.getLogger("vmborg.freeze")

_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Thaw:
    """How thawing went."""

    confirmed: bool
    thawed: int = 0  # file systems that our own calls thawed; 0 when there was nothing left to thaw
    evidence: str = ""  # the last thing that kept us from knowing


def thaw(domain: Domain, *, seconds: float, agent_timeout: int) -> Thaw:
    """Thaw until the agent says `thawed`, at least once and at most for about `seconds`. Raises nothing.

    Each try may wait `agent_timeout` seconds for the agent, if `Domain.agent_timeout` was set so; a domain
    that is shut off or gone is thawed.
    """
    until = time.monotonic() + seconds
    count = 0
    while True:
        result = _try(domain, agent_timeout)
        count = max(count, result.thawed)
        if result.confirmed or time.monotonic() >= until:
            return Thaw(result.confirmed, count, result.evidence)
        time.sleep(_STEP_S)


def _try(domain: Domain, agent_timeout: int) -> Thaw:
    count = 0
    try:
        try:
            count = domain.thaw()
        except AgentUnresponsive:
            raise
        except HypervisorError as error:  # the status decides, whatever the call says
            logger.info("thawing %s: %s", domain.uuid, error.evidence or error.brief)
        status = domain.freeze_status(timeout=agent_timeout)
        return Thaw(status == "thawed", count, f"the agent says: {status}")
    except DomainNotFound:
        return Thaw(confirmed=True, thawed=count)
    except DomainStateChanged as error:
        return Thaw(_is_off(domain), count, error.evidence or error.brief)
    except HypervisorError as error:
        return Thaw(confirmed=False, thawed=count, evidence=error.evidence or error.brief)


def _is_off(domain: Domain) -> bool:
    """Whether nothing runs that could be frozen; a paused guest is no proof."""
    try:
        return not domain.live_xml()
    except DomainNotFound:
        return True
    except HypervisorError:
        return False


def unconfirmed(name: str, evidence: str) -> ThawUnconfirmed:
    """The error for a guest that may be frozen still."""
    return ThawUnconfirmed(
        f"The guest of {name!r} may still be frozen: its agent does not confirm the thaw.",
        evidence=evidence,
        remedy=(
            "It is tried again by itself (watchdog, reconcile, the next backup) and by `vmborg recover`. Look "
            "at the guest's console whether qemu-guest-agent runs; restarting the guest thaws it for certain."
        ),
    )
