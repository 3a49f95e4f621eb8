"""The throw-away VM while it runs: what it has to show, and whether it does."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.config.drills import DrillVm
from infra.errors import DomainNotFound, HypervisorError
from infra.errors_drills import NotProvable, ProbeFailed
from infra.hypervisor.observed import Observed
from infra.model import DomainState
from tasks.drills.picture import as_png
from tasks.drills.signs import asks_for_passphrase, lines_of, sign_of_death
from tasks.units import size

logger = logging.getLogger("vmborg.drill")

_POLL_S = 0.5
_STEADY_S = 5.0
"""A guest without agent has to go on for so long after its sign of life: a panic follows the first lines of a boot."""
_READ = 1024**2
"""Bytes: firmware that finds nothing to boot reads a few sectors."""
_TAIL = 2000


@dataclass(slots=True)
class Machine:
    """One running throw-away VM."""

    domain: Observed
    console_path: Path
    wanted: DrillVm
    disks: Sequence[str]  # targets
    has_agent: bool  # the definition has the agent's channel
    agent_answered: bool  # when the archive was made
    boot: int  # seconds that all of it may take
    clock: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)
    pictures: set[bytes] = field(default_factory=set[bytes])

    @property
    def console(self) -> str:
        """What its serial port printed."""
        try:
            return self.console_path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    @property
    def tail(self) -> str:
        """The end of it."""
        return "\n".join(lines_of(self.console))[-_TAIL:]

    @property
    def _needs_agent(self) -> bool:
        if self.wanted.agent == "ignore":
            return False
        return self.wanted.agent == "require" or bool(self.wanted.commands) or (self.has_agent and self.agent_answered)

    @property
    def _left(self) -> float:
        return self.began + self.boot - self.clock()

    def picture(self) -> bytes:
        """Its screen as PNG, b"" if it has none."""
        try:
            return as_png(self.domain.screen())
        except (HypervisorError, ValueError) as error:
            logger.info("no picture of the screen: %s", error)
            return b""

    def wait_until_up(self) -> tuple[str, str]:
        """Wait for the sign of life; by what it was judged, and in words what was seen.

        Raises ProbeFailed, NotProvable (it asks for the passphrase of a disk).
        """
        alive_since: float | None = None
        while self._left > 0:
            self._require_running()
            if self._agent_answers():
                return "agent", "the guest agent answers"
            self._require_no_bad_sign()
            if not self._needs_agent:
                judged, seen = self._sign_of_life()
                alive_since = (alive_since or self.clock()) if judged else None
                patient = self.has_agent and self._left > self.boot / 2  # it may have an agent all the same
                if alive_since is not None and self.clock() - alive_since >= _STEADY_S and not patient:
                    return judged, seen
            time.sleep(_POLL_S)
        raise ProbeFailed(
            f"The guest agent did not answer within {self.boot} s."
            if self._needs_agent
            else f"Nothing shows that it booted within {self.boot} s.",
            evidence=self.tail or "its serial port printed nothing",
            remedy="Look at its picture; `drills.boot` is how long it may take.",
        )

    def _require_running(self) -> None:
        try:
            state = self.domain.state()
        except DomainNotFound:
            state = DomainState.SHUT_OFF
        if state is DomainState.SHUT_OFF:
            raise ProbeFailed("The guest shut itself off, or crashed.", evidence=self.tail)

    def _require_no_bad_sign(self) -> None:
        locked, dead = asks_for_passphrase(self.console), sign_of_death(self.console)
        if locked:
            raise NotProvable("The guest asks for a passphrase, which nobody types.", evidence=locked)
        if dead:
            raise ProbeFailed("The guest does not boot.", evidence=dead)

    def _agent_answers(self) -> bool:
        if not self.has_agent or self.wanted.agent == "ignore" or not self.domain.agent_connected():
            return False
        try:
            self.domain.agent_ping(timeout=5)
        except HypervisorError as error:
            logger.debug("%s", error)
            return False
        return True

    def _sign_of_life(self) -> tuple[str, str]:
        """Weaker than an agent's answer, and it says so."""
        said = lines_of(self.console)
        if said:
            return "console", f"no agent; judged by {len(said)} lines on its console, the last: {said[-1][:80]!r}"
        picture = self.picture()
        if picture:
            self.pictures.add(picture)
        read = sum(self.domain.bytes_read(target) for target in self.disks)
        if len(self.pictures) > 1 and read >= _READ:
            return "screen", f"no agent; judged by its screen, which changes, and {size(read)} read from its disks"
        return "", ""

    def probe(self) -> list[str]:
        """What the configuration asks for beyond booting; what was shown. Raises ProbeFailed."""
        shown: list[str] = []
        if self.wanted.console is not None:
            pattern = re.compile(self.wanted.console)
            while not pattern.search(self.console):
                self._require_running()
                if self._left <= 0:
                    raise ProbeFailed(
                        f"Its console never showed {self.wanted.console!r}.", evidence=self.tail or "it printed nothing"
                    )
                time.sleep(_POLL_S)
            shown.append(f"its console shows {self.wanted.console!r}")
        shown += [self._run(command.argv, command.exit_code, command.output) for command in self.wanted.commands]
        return shown

    def _run(self, argv: Sequence[str], code: int, output: str | None) -> str:
        what = " ".join(argv)
        try:
            ran = self.domain.run_in_guest(argv, timeout=max(self._left, 10))
        except HypervisorError as error:
            raise ProbeFailed(f"{what!r} could not be run in the guest.", evidence=str(error)) from error
        if ran.code != code:
            raise ProbeFailed(f"{what!r} ended with {ran.code}, not {code}.", evidence=ran.output[-_TAIL:])
        if output is not None and not re.search(output, ran.output, re.MULTILINE):
            raise ProbeFailed(
                f"{what!r} did not print {output!r}.", evidence=ran.output[-_TAIL:] or "it printed nothing"
            )
        return f"{what!r} ended with {code}"
