"""The daemons of libvirt, on machines where no service manager starts them."""

import os
import shutil
import signal
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

from infra.errors import CommandFailed, CommandTimedOut
from infra.process import run
from tests.guests.virsh import virsh
from tests.guests.waiting import GuestError, wait_for

_LIBVIRTD_PID = Path("/run/libvirtd.pid")
_VIRTLOGD_PID = Path("/run/virtlogd.pid")
_VIRTLOGD_SOCKET = Path("/run/libvirt/virtlogd-sock")


@dataclass(slots=True)
class Daemons:
    """What `ensure_daemons` started, by name and process id; empty if all was running."""

    started: dict[str, int] = field(default_factory=dict)
    uri: str = "qemu:///system"

    def stop(self) -> None:
        """End what was started here and nothing else; nothing at all while a guest runs: others came to use it."""
        if self.started and virsh(self.uri, "list", "--uuid"):
            return
        for name, pid in reversed(self.started.items()):
            if _is(pid, name):
                os.kill(pid, signal.SIGTERM)
                wait_for(lambda pid=pid, name=name: not _is(pid, name), timeout=30, what=f"end of {name}")
        self.started.clear()


def ensure_daemons(timeout: float = 60) -> Daemons:
    """Start virtlogd and libvirtd unless they answer; return what to stop. Needs root.

    Raises GuestError if they do not answer within `timeout` seconds.
    """
    if os.geteuid() != 0:
        raise GuestError("test guests need root")
    _open_kvm_to_its_group()
    daemons = Daemons()
    if not _listens(_VIRTLOGD_SOCKET):
        daemons.started["virtlogd"] = _start("virtlogd", _VIRTLOGD_PID, timeout=timeout)
        wait_for(lambda: _listens(_VIRTLOGD_SOCKET), timeout=timeout, what="virtlogd")
    if not libvirtd_answers():
        daemons.started["libvirtd"] = _start("libvirtd", _LIBVIRTD_PID, timeout=timeout)
        wait_for(libvirtd_answers, timeout=timeout, what="libvirtd")
    return daemons


def libvirtd_answers() -> bool:
    """Whether qemu:///system can be opened."""
    try:
        virsh("qemu:///system", "uri", timeout=20)
    except (CommandFailed, CommandTimedOut):
        return False
    return True


def _start(name: str, pid_file: Path, *, timeout: float) -> int:
    # A CI runner may ignore SIGINT and SIGQUIT, and an ignored signal stays ignored in every child: the daemons'
    # own children then cannot be stopped by it. env(1) puts the defaults back.
    run(["env", "--default-signal", f"/usr/sbin/{name}", "-d"], timeout=timeout, cwd="/")
    return wait_for(lambda: _running(name, pid_file), timeout=timeout, what=f"{pid_file} of {name}")


def _running(name: str, pid_file: Path) -> int:
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return 0
    return pid if _is(pid, name) else 0


def _is(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except (FileNotFoundError, ProcessLookupError):
        return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _open_kvm_to_its_group() -> None:
    """Give /dev/kvm the owner that udev would: without it libvirt's probes of qemu time out one by one."""
    device = Path("/dev/kvm")
    if not device.exists():
        return
    if device.group() != "kvm" or stat.S_IMODE(device.stat().st_mode) & 0o660 != 0o660:
        shutil.chown(device, group="kvm")
        device.chmod(0o660)
