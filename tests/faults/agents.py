"""A guest agent that goes wrong at will: what its freeze hook does, and a bell that the host rings in the guest.

The agent is the real one; qemu-ga runs its hook in the middle of a freeze. The bell is the power button, which does
not shut the guest down any more: it is heard without the agent.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from infra.errors import CommandFailed
from tests.faults.rig import Rig
from tests.guests import Guest, GuestError, virsh, wait_for

_HOOK = "/run/on-freeze"
_BELL = "/run/on-bell"
_ABSENT = "/run/no-agent"

_INSTALL = rf"""
echo '#!/bin/sh' >/etc/hook
echo '[ "$1" = freeze ] && [ -e {_HOOK} ] && . {_HOOK}' >>/etc/hook
echo 'exit 0' >>/etc/hook
chmod +x /etc/hook
sed -i 's|exec qemu-ga|& -v --fsfreeze-hook=/etc/hook|' /etc/agent
sed -i '2i while [ -e {_ABSENT} ]; do usleep 50000; done' /etc/agent
sed -i 's|exec shutdown -P|sh {_BELL}|' /etc/power
kill $(pidof head)
(sleep 1; kill $(pidof qemu-ga)) </dev/null >/dev/null 2>&1 &
"""

HANG = "kill -STOP $PPID"
"""The agent's process is stopped before the first file system is frozen."""

GO_ON = "kill -CONT $(pidof qemu-ga)"

REFUSE = "exit 1"
"""qemu-ga freezes nothing when its hook fails, and answers with an error."""

VANISH = f"""
agent=$PPID
(
    touch {_ABSENT}
    until [ -e /run/qga.state.isfrozen ]; do usleep 10000; done
    kill -9 $agent
) </dev/null >/dev/null 2>&1 &
"""
"""The agent's process is killed in the freeze, and there is no other until `COME_BACK`."""

COME_BACK = f"rm -f {_ABSENT}"


@contextmanager
def going_wrong(rig: Rig, *, hook: str, bell: str = "true") -> Iterator[None]:
    """What the next freeze meets before anything is frozen, and what the bell does; both are shell commands.

    The bell is rung at the end of the block, so that a test that fails leaves an agent.
    """
    prepare(rig, hook=hook, bell=bell)
    try:
        yield
    finally:
        ring(rig)
        rig.guest.wait_agent()


def prepare(rig: Rig, *, hook: str, bell: str = "true") -> None:
    """The same, for a freeze that leaves the agent as it was."""
    guest = rig.guest
    if "fsfreeze-hook" not in _agent_command(guest):
        _sh(guest, _INSTALL)
        wait_for(lambda: "fsfreeze-hook" in _agent_command(guest), timeout=60, what="the agent with a hook")
    for path, script in ((_HOOK, f"rm {_HOOK}\n{hook}"), (_BELL, bell)):
        _sh(guest, f"cat >{path} <<'END'\n{script}\nEND")


def _sh(guest: Guest, script: str) -> None:
    code, said = guest.exec(["sh", "-c", script])
    assert code == 0, said


def _agent_command(guest: Guest) -> str:
    try:
        return guest.exec(["sh", "-c", "cat /proc/$(pidof qemu-ga)/cmdline"])[1]
    except (CommandFailed, GuestError):  # it is just being replaced
        return ""


def freezes(rig: Rig) -> int:
    """How many freezes the agent has carried out; it logs that it logs nothing while file systems are frozen."""
    return int(rig.guest.exec(["grep", "-c", "disabling logging due to filesystem freeze", "/run/agent.log"])[1])


def ring(rig: Rig) -> None:
    """Ring the bell."""
    virsh(rig.guest.uri, "shutdown", rig.guest.uuid, "--mode", "acpi")


def answers(rig: Rig) -> bool:
    """Whether the agent answers; libvirt asks only after whoever asks now has his answer or has given up."""
    try:
        rig.guest.agent("guest-ping", timeout=3)
    except CommandFailed:
        return False
    return True


def wait_freeze_given_up(rig: Rig) -> None:
    """Wait until the run has asked for the freeze and had no answer in time."""

    def asked() -> bool:
        entry = rig.site.journal.read(rig.guest.uuid)
        return entry is not None and entry.freeze

    wait_for(asked, timeout=90, what="the freeze")
    wait_for(lambda: not answers(rig), timeout=30, what="an agent that hangs")
