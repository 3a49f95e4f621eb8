"""The process that thaws a guest when the one that froze it cannot: dead, stuck, or too slow.

It has its own connection to libvirt, opened before the freeze, and its own session, and it ignores the
signals that end a run. It reads words from its standard input:

    freezing   a freeze is being asked for now; the deadline begins
    thawed     the guest was seen thawed; nothing is left to do

and thaws, until the agent confirms it, at the deadline and when its input ends (the pipe closes with its
writer's death). Input that ends before `freezing` means that nothing was frozen: somebody else's freeze is
not its business. Standard library and infra.hypervisor only: its start is part of every backup.
"""

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from infra.errors import HypervisorError
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.thaw import thaw

READY = "ready"
FREEZING = "freezing"
THAWED = "thawed"

_ROUND_S = 1.0  # between two looks at the input while thawing
_START_S = 300.0  # a parent that says nothing for so long has forgotten us
_CHUNK = 4096


class Words:
    """What the parent says, word by word, without ever blocking for longer than asked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._heard = b""
        self.ended = False

    def wait(self, word: str, seconds: float) -> bool:
        """Whether the parent says `word` within `seconds`; False also when its input ends."""
        until = time.monotonic() + seconds
        while word.encode() not in self._heard.split(b"\n")[:-1]:
            left = max(0.0, until - time.monotonic())
            if self.ended or not select.select([self._descriptor], [], [], left)[0]:
                return False
            chunk = os.read(self._descriptor, _CHUNK)
            self.ended = not chunk
            self._heard += chunk
        return True


def _say(text: str) -> None:
    with suppress(OSError):  # whoever listened may be dead: that is what we are for
        os.write(sys.stdout.fileno(), f"{text}\n".encode())


def watch(domain: Domain, words: Words, *, agent_timeout: int, deadline: float, persist: float) -> bool:
    """Follow the words, thaw when it is time. All times in seconds. Returns whether nothing is left frozen."""
    if not words.wait(FREEZING, _START_S):
        return True
    if words.wait(THAWED, deadline):
        return True
    _say("the parent is gone" if words.ended else "the deadline has passed")
    until = time.monotonic() + persist
    while time.monotonic() < until:
        if thaw(domain, seconds=_ROUND_S, agent_timeout=agent_timeout).confirmed:
            _say(THAWED)
            return True
        if words.wait(THAWED, 0):
            return True
        time.sleep(_ROUND_S)  # an agent that does not answer at once is not asked more often
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: nothing is left frozen. 1: the guest could not be thawed in time. 2: never got ready."""
    parser = argparse.ArgumentParser(prog="vmborg-watchdog")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--uuid", required=True)
    parser.add_argument("--agent-timeout", type=int, required=True, help="seconds")
    parser.add_argument("--deadline", type=float, required=True, help="seconds a guest may be frozen")
    parser.add_argument("--persist", type=float, required=True, help="seconds to go on trying to thaw")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        with Hypervisor.open(options.uri) as hypervisor:
            domain = hypervisor.by_uuid(options.uuid)
            _say(READY)
            thawed = watch(
                domain,
                Words(sys.stdin.fileno()),
                agent_timeout=options.agent_timeout,
                deadline=options.deadline,
                persist=options.persist,
            )
    except HypervisorError as error:
        _say(str(error))
        return 2
    return 0 if thawed else 1


if __name__ == "__main__":
    sys.exit(main())
