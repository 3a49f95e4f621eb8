"""A host with archives to boot: of a guest, and of domains without an operating system, in both layouts."""

import json
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load
from infra.config.models import Config
from infra.hypervisor.connection import Domain
from infra.hypervisor.qemu_process import life_of
from infra.journal.views import OpenView
from infra.process import run
from tasks.boot import discard
from tasks.boot.known import booted
from tests.guests import Daemons, DiskSpec, image_dir, virsh
from tests.guests.waiting import wait_for
from tests.integration.restoring import MIB, RestoreHost, restore_host, write
from tests.integration.vmborg import Call, vmborg

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class BootHost:
    """`host` with a scratch folder for `boot`."""

    host: RestoreHost

    @property
    def config(self) -> Config:
        """As it is on the disk."""
        return load(self.host.config_path)

    @property
    def uri(self) -> str:
        """libvirt's."""
        return self.host.hypervisor.uri

    @property
    def scratch(self) -> Path:
        """Where overlays are."""
        return self.host.root / "scratch"

    def name(self, vm: str) -> str:
        """What libvirt calls it."""
        return f"{self.host.prefix}-{vm}"

    def configure(self, **defaults: Any) -> None:
        """Write the configuration with these keys in vms.defaults."""
        settings = json.loads(self.host.config_path.read_text("utf-8"))
        settings["drills"] = {"scratch": str(self.scratch)}
        settings["vms"]["defaults"] = {"repository": "main", "min_free": "64MiB", **defaults}
        self.host.config_path.write_text(json.dumps(settings), encoding="utf-8")

    def vmborg(self, *arguments: str | Path, timeout: float = 120) -> Call:
        """Run the command."""
        return vmborg(*arguments, config=self.host.config_path, timeout=timeout)

    def ok(self, *arguments: str | Path) -> Any:
        """The same with --json; it must succeed."""
        call = self.vmborg("--json", *arguments)
        assert call.code == 0, call.stdout + call.stderr
        return call.document

    def dies(self, vm: str, step: str, directory: Path | None = None) -> None:
        """Let `boot`, or its copy, be killed at a step."""
        argv = [sys.executable, "-m", "tests.e2e.dying_boot", str(self.host.config_path), vm, step]
        dead = run([*argv, *([str(directory)] if directory else [])], timeout=120, check=False, cwd=str(ROOT))
        assert dead.returncode == -signal.SIGKILL, dead.stderr

    def domain(self, name: str) -> Domain:
        """Looked up anew."""
        return self.host.hypervisor.find(name)

    def view(self, name: str) -> OpenView:
        """The view that a booted VM lies on."""
        return next(view for view, vm in booted(self.config) if vm.name == name)

    def io(self, name: str, *commands: str) -> None:
        """What the guest would do to its disk vda, as in `tests.e2e.sources.guest_io`."""
        for command in commands:
            text = f'qemu-io -d /machine/peripheral/ua-vda/virtio-backend "{command}"'
            answer = virsh(self.uri, "qemu-monitor-command", name, "--hmp", text)
            assert "rror" not in answer, answer
            assert "verification failed" not in answer, answer

    def left(self) -> list[str]:
        """Whatever of booted VMs is on the host."""
        views = self.host.root / "state" / "views"
        files = [*self.scratch.glob("*"), *views.glob("*"), *self.host.root.glob("state/.vmborg-restore-*")]
        nvram = Path("/var/lib/libvirt/qemu/nvram").glob(f"*{self.host.prefix}*boot*")
        names = [name for name in self.host.names() if name.endswith("-boot")]
        return [*names, *map(str, [*files, *nvram]), *self.servers()]

    def servers(self) -> list[str]:
        """Processes that show an archive of this host: each serves a mount, and ends with it."""
        repository, views = str(self.host.root / "repository").encode(), self.host.root / "state" / "views"
        found = {pid: _argv(pid) for pid in _processes()}
        borgs = [f"borg {pid}" for pid, argv in found.items() if b"mount" in argv and repository in b" ".join(argv)]
        ours = [pid for pid, argv in found.items() if b"infra.segments.joined" in argv and _log_of(pid).parent == views]
        return [*borgs, *(f"segments {pid}" for pid in ours)]

    def kill_server(self, place: str) -> None:
        """kill -9 of the process that serves what is mounted below `place`, and wait until the mount is dead."""
        server = next(pid for pid in _processes() if _serves(pid, place))
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: not _answers(place), timeout=30, what=f"the end of {place}")

    def clean(self) -> None:
        """End what a test that failed has left."""
        for _, vm in booted(self.config):
            discard(self.config, vm.uuid)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _serves(pid: int, place: str) -> bool:
    """borg names its mount in its arguments; of our own server the file that it writes errors to tells whose it is."""
    argv = _argv(pid)
    if place.endswith("/archive"):
        return b"mount" in argv and place.encode() in argv
    return b"infra.segments.joined" in argv and _log_of(pid).name.startswith(place.split("/")[-2])


def _argv(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []  # it ended


def _log_of(pid: int) -> Path:
    try:
        return Path(f"/proc/{pid}/fd/2").readlink()
    except OSError:
        return Path()


def _answers(place: str) -> bool:
    try:
        os.statvfs(place)
    except OSError:
        return False
    return True


def open_files(uuid: str) -> list[str]:
    """What the qemu of a domain has open."""
    pid = life_of(uuid).split()[1]
    links = Path(f"/proc/{pid}/fd").iterdir()
    return [str(link.readlink()) for link in links if link.is_symlink()]


@contextmanager
def boot_host(root: Path) -> Generator[BootHost]:
    """Below `root`, with the archives `clone` (a linked clone and a raw disk, whole) and `parts` (segments)."""
    with restore_host(root) as place:
        made = BootHost(place)
        made.configure()
        template = place.image("template.qcow2", fill=5)
        clone = place.image("clone.qcow2", backing=template)
        write(clone, "qcow2", 6, offset=MIB)
        raw = place.image("b.raw", image_format="raw", fill=8)
        archive(made, "clone", [DiskSpec("vda", clone), DiskSpec("vdb", raw, format="raw")])
        archive(made, "parts", [DiskSpec("vda", place.image("parts.qcow2", fill=9))], segments=True)
        template.rename(place.images / "elsewhere.qcow2")  # the archive's is the one that counts
        try:
            yield made
        finally:
            made.clean()


@pytest.fixture(scope="module", name="host")
def booting_host(daemons: Daemons) -> Iterator[BootHost]:
    """One for a file of tests that imports this."""
    assert daemons is not None
    with image_dir("boot") as root, boot_host(root) as made:
        yield made


def assert_nothing_left(host: BootHost) -> None:
    """Of no booted VM; a server needs a moment to see that its mount is gone."""
    wait_for(lambda: not host.servers(), timeout=30, what="the end of what showed the archive")
    assert host.left() == []


def quiet(_text: str) -> None:
    """Nobody listens."""


def archive(made: BootHost, name: str, disks: Sequence[DiskSpec], **how: Any) -> Domain:
    """A domain that is shut off, and an archive of it."""
    edit: Any = how.pop("edit", ())
    domain = made.host.define(disks, name=name, edit=edit)
    made.host.factory.make(domain, **how)
    return domain
