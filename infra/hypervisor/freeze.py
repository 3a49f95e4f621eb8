"""The frozen window: the guest's file systems stand still while the snapshot is taken.

Not libvirt's QUIESCE flag: it waits for the agent without limit, cannot be told which file systems, and
reports nothing. A freeze counts only if the agent says that it froze as many file systems as were asked
for, and more than none, and that it is frozen now: `fsFreeze(['/nonexist'])` returns 0 and freezes nothing
(tried: libvirt 9.0).
"""

import logging
import os
import select
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from infra.errors import FreezeFailed, HypervisorError
from infra.hypervisor import watchdog
from infra.hypervisor.domain import Domain
from infra.hypervisor.thaw import Thaw, thaw, unconfirmed
from infra.model import Consistency, DomainState, FreezeReport, Quiesce
from infra.process import Child, own_module, spawn

logger = logging.getLogger("vmborg.freeze")

WATCHDOG_PERSIST_S = 600.0
"""How long the watchdog goes on trying to thaw a guest; then recover and reconcile do."""

_WATCHDOG_START_S = 20.0
_WATCHDOG_END_S = 5.0
_FOREIGN = "the file systems are frozen already, by somebody else"
_REFUSED_AS_FROZEN = "agent is in frozen state"


class FrozenWindow:
    """What happens in the window. `report` is complete once the block has ended."""

    def __init__(self) -> None:
        self.frozen = False
        self.report = FreezeReport(Consistency.CRASH, "the window has not ended", thaw_confirmed=False)


@contextmanager
def frozen_window(
    domain: Domain,
    *,
    policy: Quiesce,
    mountpoints: Sequence[str] = (),
    agent_timeout: int,
    deadline: float,
    on_freeze: Callable[[], None] = lambda: None,
) -> Generator[FrozenWindow]:
    """Freeze the guest for the block, as far as `policy` wants it and the guest can.

    `agent_timeout` bounds each answer of the agent and `deadline` the freeze, both in seconds; at the
    deadline a process of its own thaws the guest, as it does when this one dies. `on_freeze` is called
    right before the freeze is sent: from then on, until `report.thaw_confirmed`, the journal must say that
    the guest may be frozen. Somebody else's freeze is left alone.

    Raises FreezeFailed (policy `require`): before the block if the guest cannot be frozen, after it if the
    freeze did not last; ThawUnconfirmed whenever the guest may be frozen still, the watchdog goes on trying
    then; HypervisorError when libvirt fails.
    """
    window = FrozenWindow()
    reason = _unfit(domain, policy)
    if reason:
        window.report = _without(domain, policy, reason=reason)
        yield window
        return
    with _watchdog(domain, agent_timeout=agent_timeout, deadline=deadline) as guard:
        freeze = _Freeze(domain, guard, agent_timeout=agent_timeout, deadline=deadline)
        reason = freeze.begin(mountpoints, on_freeze)
        window.frozen = not reason
        if reason:
            window.report = _without(domain, policy, reason=reason)
            yield window
            return
        try:
            yield window
        finally:
            window.report = freeze.end()
    if window.report.consistency is not Consistency.AGENT:
        report = window.report
        window.report = _without(domain, policy, reason=report.reason, frozen_ms=report.frozen_ms)


def _unfit(domain: Domain, policy: Quiesce) -> str:
    """Why there is nothing to freeze, "" if it is worth trying."""
    if policy is Quiesce.NEVER:
        return "the policy is never to freeze"
    state = domain.state()
    if state is not DomainState.RUNNING:
        return f"the guest is {state}"
    if not domain.agent_connected():
        return "no guest agent is connected"
    return ""


def _without(domain: Domain, policy: Quiesce, *, reason: str, frozen_ms: int = 0) -> FreezeReport:
    """Go on without a freeze, if the policy lets us. Raises FreezeFailed."""
    if policy is Quiesce.REQUIRE:
        raise FreezeFailed(
            f"The file systems of {domain.name!r} could not be frozen, and its policy is `quiesce: require`.",
            evidence=reason,
            remedy="Look at qemu-guest-agent inside the guest, or set `quiesce: try` for this VM.",
        )
    log = logger.info if policy is Quiesce.NEVER else logger.warning
    log("%s is backed up as after a power cut: %s", domain.name, reason)
    return FreezeReport(Consistency.CRASH, reason, frozen_ms=frozen_ms)


class _Freeze:
    """One freeze of one domain, from the request to the confirmed thaw."""

    def __init__(self, domain: Domain, guard: "_Guard", *, agent_timeout: int, deadline: float) -> None:
        self._domain = domain
        self._guard = guard
        self._agent_timeout = agent_timeout
        self._deadline = deadline
        self._began = 0.0
        self._count = 0

    def begin(self, mountpoints: Sequence[str], on_freeze: Callable[[], None]) -> str:
        """Freeze; return "" or why the guest is not frozen, thawed and confirmed then. Raises ThawUnconfirmed."""
        wanted = list(dict.fromkeys(mountpoints))
        try:
            self._domain.agent_timeout(self._agent_timeout)
            if self._domain.freeze_status(timeout=self._agent_timeout) != "thawed":
                return _FOREIGN
        except HypervisorError as error:
            return f"the guest agent does not answer ({error.evidence or error.brief})"
        if not self._guard.ready():
            return "the watchdog that would thaw the guest did not start"
        on_freeze()
        self._guard.say(watchdog.FREEZING)
        self._began = time.monotonic()
        try:
            reason = self._freeze(wanted)
        except HypervisorError as error:
            if _REFUSED_AS_FROZEN in error.evidence:  # somebody was quicker; the freeze is theirs
                self._guard.say(watchdog.THAWED)
                return _FOREIGN
            reason = f"the freeze failed ({error.evidence or error.brief})"
        except BaseException:
            self._thaw()  # the run is being ended; a thaw is still ours to do
            raise
        if reason:
            self._thaw()
        return reason

    def _freeze(self, wanted: list[str]) -> str:
        self._count = self._domain.freeze(wanted or None)
        if self._count <= 0:
            return "the agent froze no file system"
        if wanted and self._count != len(wanted):
            return f"the agent froze {self._count} of {len(wanted)} file systems: {', '.join(wanted)}"
        status = self._domain.freeze_status(timeout=self._agent_timeout)
        return "" if status == "frozen" else f"after the freeze the agent says: {status}"

    def end(self) -> FreezeReport:
        """Thaw, and tell what the window was like. Raises ThawUnconfirmed."""
        result = self._thaw()
        frozen_ms = round((time.monotonic() - self._began) * 1000)
        if not result.thawed:  # there was nothing left to thaw: it ended before the block did
            reason = f"the guest was thawed before the snapshot's end (deadline {self._deadline:g} s)"
            return FreezeReport(Consistency.CRASH, reason, frozen_ms=frozen_ms)
        reason = f"{self._count} file systems frozen"
        return FreezeReport(Consistency.AGENT, reason, frozen_ms=frozen_ms, filesystems=self._count)

    def _thaw(self) -> Thaw:
        left = max(self._began + self._deadline - time.monotonic(), float(self._agent_timeout))
        result = thaw(self._domain, seconds=left, agent_timeout=self._agent_timeout)
        if not result.confirmed:
            raise unconfirmed(self._domain.name, result.evidence)
        self._guard.say(watchdog.THAWED)
        return result


class _Guard:
    """The watchdog, seen from the process that it watches."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def ready(self) -> bool:
        """Wait until it has its connection."""
        if select.select([self._child.stdout], [], [], _WATCHDOG_START_S)[0]:
            line = os.read(self._child.stdout.fileno(), 4096).decode("utf-8", "replace").strip()
            if line == watchdog.READY:
                return True
            logger.error("the watchdog did not start: %s", line or f"exit code {self._child.poll()}")
        return False

    def say(self, word: str) -> None:
        """Tell it; if it is dead, it needs no telling."""
        try:
            os.write(self._child.stdin.fileno(), f"{word}\n".encode())
        except BrokenPipeError:
            logger.warning("the watchdog has ended")


@contextmanager
def _watchdog(domain: Domain, *, agent_timeout: int, deadline: float) -> Generator[_Guard]:
    """Start it, and leave it alone afterwards: it ends by itself when it was told that the guest is thawed."""
    options = {
        "--uri": domain.uri,
        "--uuid": domain.uuid,
        "--agent-timeout": str(agent_timeout),
        "--deadline": f"{deadline:g}",
        "--persist": f"{WATCHDOG_PERSIST_S:g}",
    }
    argv, environment = own_module(watchdog.__name__, *(part for pair in options.items() for part in pair))
    with spawn(argv, env=environment, stdin=True, detached=True) as child:
        child.release()
        yield _Guard(child)
