"""Ask virsh, and the guest agent through it.

The suite talks to libvirt by its command line, so that a fault of our own libvirt code cannot hide itself.
"""

import json
from typing import Any

from infra.errors import CommandFailed
from infra.process import run


def virsh(uri: str, *arguments: str, timeout: float = 60) -> str:
    """What `virsh -c URI ARGUMENTS` prints. Raises CommandFailed and CommandTimedOut."""
    return run(["virsh", "-q", "-c", uri, *arguments], timeout=timeout).stdout.strip()


def agent_command(uri: str, domain: str, command: str, *, timeout: int = 10, **arguments: Any) -> Any:
    """The agent's answer to one command of qemu-ga-ref(7). `timeout` in seconds. Raises CommandFailed."""
    request = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
    answer = virsh(
        uri, "qemu-agent-command", domain, json.dumps(request), "--timeout", str(timeout), timeout=timeout + 20
    )
    return json.loads(answer)["return"]


def agent_answers(uri: str, domain: str) -> bool:
    """Whether the agent answers a ping within two seconds."""
    try:
        agent_command(uri, domain, "guest-ping", timeout=2)
    except CommandFailed:
        return False
    return True
