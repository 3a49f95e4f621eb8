"""What is measured: one guest with 3 GiB of mixed data, vmborg's configuration, the article's repository."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.process import run
from tests.guests import Boot, DiskSpec, Guest, build_boot, domain_xml

URI = "qemu:///system"
NAME = "vmborg-bench"
MIB = 1024**2
DATA = 3 * 1024 * MIB + 256 * MIB
DISK = "6G"
SINGLE, SINGLE_BYTES = "single", 10 * MIB
"""A file of the guest, on its only disk."""

BIN = Path(sys.prefix) / "bin"
_PASSPHRASE = "only-for-the-bench"


@dataclass(frozen=True, slots=True)
class Timed:
    """A command that ended: its wall time in seconds, its own peak resident memory in MB, what it printed."""

    seconds: float
    peak_mb: float
    stdout: str


@dataclass(frozen=True, slots=True)
class World:
    """Where everything is."""

    root: Path
    named: str = "vmborg.yaml"

    @property
    def image(self) -> Path:
        """The disk."""
        return self.root / "vda.qcow2"

    @property
    def config(self) -> Path:
        """vmborg's configuration."""
        return self.root / self.named

    def vmborg(self, *arguments: str, env: dict[str, str] | None = None) -> Timed:
        """Run `vmborg --json`."""
        argv = [str(BIN / "vmborg"), "--config", str(self.config), "--json", *arguments]
        return timed(argv, env=env)

    def backup(self, env: dict[str, str] | None = None) -> tuple[Timed, dict[str, Any]]:
        """One backup of the guest and its result."""
        drop_caches()
        done = self.vmborg("backup", NAME, env=env)
        return done, json.loads(done.stdout)["backups"][0]["result"]

    def new_repositories(self) -> None:
        """Begin anew, ours and theirs, with nothing cached of the old ones."""
        for name in ("ours", "theirs", "state", "borg-home"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        self.vmborg("init")
        self.borg("init", "--encryption", "repokey", str(self.root / "theirs"))

    def borg(self, *arguments: str) -> Timed:
        """Run borg on the article's repository, with borg's defaults."""
        env = {"BORG_PASSPHRASE": _PASSPHRASE, "BORG_BASE_DIR": str(self.root / "borg-home")}
        return timed([str(BIN / "borg"), *arguments], env=env, cwd=self.root)


@contextmanager
def usual_read_ahead(folder: Path) -> Iterator[None]:
    """The kernel's own read-ahead at its default of 128 KiB on the device of a folder, for both sides.

    Some images of virtual machines come with 64 times as much. Where the device cannot be told, nothing is done.
    """
    number = folder.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    settings = (place / "queue" / "read_ahead_kb" for place in (device, device.parent))
    setting = next((each for each in settings if each.is_file()), None)
    before = setting.read_text("ascii") if setting else ""
    try:
        if setting:
            setting.write_text("128", "ascii")
        yield
    finally:
        if setting:
            setting.write_text(before, "ascii")


def drop_caches() -> None:
    """Empty the page cache, so that every copy reads from storage."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


def say(text: str) -> None:
    """Where we are."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def timed(argv: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> Timed:
    """Run a command, watching its own peak memory (VmHWM, without its children). Raises CalledProcessError."""
    begun = time.monotonic()
    with subprocess.Popen(
        argv, env={**os.environ, **(env or {})}, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _peak_mb(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        seconds = time.monotonic() - begun
        stdout = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, argv, stdout)
    return Timed(seconds, peak, stdout)


def extracted_by_hand(world: World, repository: Path, archive: str) -> float:
    """Seconds of `borg extract --sparse`, from a cold cache until all of it is on the disk; nothing of it stays."""
    target = world.root / "by-hand"
    target.mkdir()
    drop_caches()
    began = time.monotonic()
    env = {"BORG_PASSPHRASE": _PASSPHRASE, "BORG_BASE_DIR": str(world.root / "borg-home")}
    timed([str(BIN / "borg"), "extract", "--sparse", f"{repository}::{archive}"], env=env, cwd=target)
    run(["sync", "--file-system", str(target)], timeout=600)
    seconds = time.monotonic() - began
    shutil.rmtree(target)
    return seconds


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024 / 1e6


def build(root: Path) -> tuple[World, Guest]:
    """Make the disk, boot the guest, write the configuration."""
    world = World(root)
    boot = build_boot()
    kept = Boot(*(Path(shutil.copy(part, root)) for part in (boot.kernel, boot.initrd)))
    _make_image(world)
    disks = [DiskSpec(target="vda", path=world.image, format="qcow2")]
    guest = Guest.define(URI, domain_xml(NAME, boot=kept, disks=disks, serial_log=root / "console.log"))
    guest.start()
    guest.wait_agent(180)
    guest.wait_counter_moves()
    passphrase = root / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(_PASSPHRASE, encoding="utf-8")
    world.config.write_text(
        f"""\
state_dir: {root}/state
hypervisor: {{name: bench, uri: "{URI}"}}
repositories:
  main: {{location: {root}/ours, passphrase: {{file: {passphrase}}}}}
vms:
  defaults: {{repository: main, quiesce: require}}
""",
        encoding="utf-8",
    )
    return world, guest


def _make_image(world: World) -> None:
    """Mixed data: real files of this system, incompressible, half-compressible pages, a log."""
    files = world.root / "files"
    files.mkdir()
    generator = random.Random(7)
    budget = _copy_real_files(files / "usr", DATA // 2)
    pages, noise = (DATA - budget) // 2, (DATA - budget) // 2
    _write(
        files / "pages", pages, lambda: generator.randbytes(MIB // 2) + bytes(MIB // 2 - 64) + generator.randbytes(64)
    )
    _write(files / "noise", noise, lambda: generator.randbytes(MIB))
    _write(files / SINGLE, SINGLE_BYTES, lambda: generator.randbytes(MIB))
    raw = world.root / "raw"
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", str(files), str(raw), DISK], timeout=1200)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(world.image)], timeout=1200)
    shutil.rmtree(files)
    raw.unlink()


def _copy_real_files(target: Path, limit: int) -> int:
    """Copy regular files below /usr up to `limit` bytes; return how many were copied."""
    copied = 0
    for path in sorted(Path("/usr/lib").rglob("*")):
        if copied >= limit:
            break
        if path.is_file() and not path.is_symlink():
            place = target / path.relative_to("/usr")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            copied += path.stat().st_size
    return copied


def _write(path: Path, size: int, block: Any) -> None:
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block())
