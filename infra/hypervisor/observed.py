"""What a drill asks of a running domain: its screen, commands in the guest, how much it has read."""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from infra.errors import AgentUnresponsive, HypervisorError
from infra.hypervisor.domain import Domain

_CHUNK = 64 * 1024
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended in the guest. A signal counts as 128 and its number."""

    code: int
    output: str  # both streams


class Observed(Domain):
    """A domain of which more is asked than a backup asks. Made by `Hypervisor.observed`."""

    def screen(self) -> bytes:
        """A picture of its first screen, as qemu makes it: PPM (P6), or PNG."""

        def shoot(raw: Any) -> bytes:
            stream = raw.connect().newStream(0)
            raw.screenshot(stream, 0, 0)
            parts: list[bytes] = []
            while part := stream.recv(_CHUNK):
                parts.append(part)
            stream.finish()
            return b"".join(parts)

        return self._read("The picture of the screen of", shoot)

    def bytes_read(self, target: str) -> int:
        """Bytes that the guest and its firmware have read from a disk since the start."""
        return int(self._read(f"Reading the figures of disk {target} of", lambda raw: raw.blockStats(target))[1])

    def run_in_guest(self, argv: Sequence[str], *, timeout: float) -> Ran:
        """Run a command through the agent and wait for its end, `timeout` in seconds.

        Raises AgentUnresponsive, and HypervisorError when the agent refuses.
        """
        begun = self._command("guest-exec", {"path": argv[0], "arg": list(argv[1:]), "capture-output": True})
        deadline = time.monotonic() + timeout
        while not (status := self._command("guest-exec-status", {"pid": begun["pid"]}))["exited"]:
            if time.monotonic() > deadline:
                raise AgentUnresponsive(f"{argv[0]} in {self._name!r} did not end within {timeout:g} s.")
            time.sleep(_POLL_S)
        output = b"".join(base64.b64decode(str(status.get(key, ""))) for key in ("out-data", "err-data"))
        code = status.get("exitcode", 128 + int(status.get("signal", 0)))
        return Ran(int(code), output.decode(errors="replace"))

    def _command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        request = json.dumps({"execute": name, "arguments": arguments})
        what = f"The agent command {name} of"
        answer = self._act(what, lambda raw: self._link.agent_command(raw, request=request, timeout=10))
        try:
            return cast("dict[str, Any]", json.loads(answer)["return"])
        except (ValueError, KeyError, TypeError) as error:
            raise HypervisorError(f"{what} {self._name!r} was answered by nonsense.", evidence=answer) from error
