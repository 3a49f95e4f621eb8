"""A libvirtd of one's own, to be killed at will while the host's own goes on.

It lives in a mount namespace in which its sockets, state, definitions and logs are folders of ours; images are where
they are everywhere. Seen from outside its socket is a file like any other.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from infra.errors import CommandFailed
from infra.process import Child, spawn
from tests.guests import virsh, wait_for

_PLACES = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt/qemu",
    "log": "/var/log/libvirt",
}
_START_S = 60


class OwnLibvirtd:
    """Made by `own_libvirtd`."""

    def __init__(self, folder: Path, namespace: Child) -> None:
        self._folder = folder
        self._namespace = namespace
        self._daemon = ExitStack()
        self._child: Child | None = None
        self._dead = False
        self.uri = f"qemu+unix:///system?socket={folder}/run/libvirt-sock"

    def start(self) -> None:
        """Start it and wait until it answers."""
        # A killed libvirtd leaves its socket behind: only an answer shows that the new one has bound it.
        self._child = self._daemon.enter_context(self._inside("libvirtd", "-f", str(self._folder / "libvirtd.conf")))
        wait_for(self.answers, timeout=_START_S, what="libvirtd of one's own")

    def kill(self) -> None:
        """kill -9; its guests go on."""
        assert self._child is not None, "it does not run"
        self._child.kill()
        self._child = None
        self._daemon.close()

    @property
    def entering(self) -> list[str]:
        """What in front of a command runs it on this host: with its name and its libvirt's files."""
        return ["nsenter", "-t", str(self._namespace.pid), "-m", "-u"]

    def die(self) -> None:
        """The death of the host: kill -9 of all that runs on it, guests included. It does not come back."""
        self._dead = True
        host = _host_of(self._namespace.pid)
        for pid in [int(path.name) for path in Path("/proc").glob("[0-9]*")]:
            if _host_of(pid) == host:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def forget_guests(self) -> None:
        """Remove what a killed one knew of running guests, as a boot of the host does. None may run."""
        for path in (self._folder / "run/qemu").iterdir():
            if path.suffix in {".xml", ".pid"}:
                path.unlink()

    def answers(self) -> bool:
        """Whether a connection can be opened."""
        try:
            virsh(self.uri, "uri", timeout=20)
        except CommandFailed:
            return False
        return True

    @contextmanager
    def _inside(self, program: str, *options: str) -> Iterator[Child]:
        pid_file = self._folder / f"{program}.pid"
        argv = [*self.entering, program, "-p", str(pid_file), *options]
        with (
            (self._folder / f"{program}.out").open("wb") as log,
            spawn(argv, stdout=log, stderr=log, own_session=True) as child,
        ):
            yield child

    @contextmanager
    def logging(self) -> Iterator[None]:
        """The virtlogd that takes its guests' output."""
        with self._inside("virtlogd"):
            socket = self._folder / "run/virtlogd-sock"
            wait_for(socket.exists, timeout=_START_S, what="virtlogd of one's own")
            yield

    def end(self) -> None:
        """End its guests, then itself."""
        if self._dead:
            self._daemon.close()
            return
        if self._child is None:
            self.start()
        for name in virsh(self.uri, "list", "--uuid").split():
            virsh(self.uri, "destroy", name)
        self._daemon.close()


def _host_of(pid: int) -> str:
    """What tells by which host's name a process goes, "" when it is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/uts").readlink())
    except OSError:
        return ""


@contextmanager
def own_libvirtd(host: str = "") -> Iterator[OwnLibvirtd]:
    """A libvirtd that answers, with no domain, on a host of this name (without one: ours). Needs root."""
    folder = Path(tempfile.mkdtemp(prefix="vmborg-libvirtd-", dir="/var/tmp"))
    folder.chmod(0o755)
    # libvirt tells hosts apart by their UUID: a guest migrates to another host only.
    usual = Path("/etc/libvirt/libvirtd.conf").read_text("utf-8")
    (folder / "libvirtd.conf").write_text(f'{usual}\nhost_uuid = "{uuid4()}"\n', "utf-8")
    mounts = "".join(f"mkdir {folder}/{name}; mount --bind {folder}/{name} {at}; " for name, at in _PLACES.items())
    script = f"""
        set -e; mount --make-rprivate /; {f"hostname {host}" if host else ":"}
        mkdir -p /var/lib/libvirt/images {folder}/images; mount --bind /var/lib/libvirt/images {folder}/images
        {mounts}
        mkdir /var/lib/libvirt/images /run/libvirt/common; mount --bind {folder}/images /var/lib/libvirt/images
        echo ready; exec sleep infinity"""
    try:
        with spawn(["unshare", "-m", "-u", "sh", "-c", script], own_session=True) as namespace:
            assert namespace.stdout.readline() == "ready\n", namespace.stderr.read()
            daemon = OwnLibvirtd(folder, namespace)
            with daemon.logging():
                daemon.start()
                try:
                    yield daemon
                finally:
                    daemon.end()
    finally:
        shutil.rmtree(folder)
