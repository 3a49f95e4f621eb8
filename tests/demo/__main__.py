"""Run the demo: python -m tests.demo [--clean]. Exit code 0 only when everything it claims was seen."""

import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.guests import (
    Boot,
    DiskSpec,
    Guest,
    build_boot,
    domain_xml,
    ensure_daemons,
    make_disk,
    read_counters_from_images,
    virsh,
)

NAME = "vmborg-demo"
URI = "qemu:///system"
IMAGES = Path("/var/lib/libvirt/images/vmborg-demo")
STATE = Path("/var/lib/vmborg-demo")
MIB = 1024**2
VMBORG = Path(sys.prefix) / "bin" / "vmborg"
TARGETS = ("vda", "vdb", "vdc")


class DemoFailed(Exception):
    """Something the demo shows did not happen."""


@dataclass
class Stopwatch:
    """Seconds by what was done."""

    times: dict[str, float] = field(default_factory=dict)

    def measure(self, what: str, since: float) -> None:
        """Remember how long `what` took, since a time.monotonic()."""
        self.times[what] = time.monotonic() - since


def main(arguments: list[str]) -> int:
    """Run or clean up; return the exit code."""
    if arguments not in ([], ["--clean"]):
        say("usage: python -m tests.demo [--clean]")
        return 2
    daemons = ensure_daemons()
    try:
        clean()
        if not arguments:
            run()
    except DemoFailed as error:
        say(f"\nThe demo FAILED: {error}\nIts files are in {STATE} and {IMAGES}; `make demo-clean` removes them.")
        return 1
    finally:
        daemons.stop()
    return 0


def run() -> None:
    """The whole story."""
    watch = Stopwatch()
    begun = time.monotonic()
    STATE.mkdir(parents=True, mode=0o700)
    title("1. A guest with three disks, writing a counter to them one after the other")
    guest = start_guest(watch)
    configure()
    title("2. Two live backups")
    vmborg("init")
    first = backup(guest, watch, "first backup")
    guest.exec(["sh", "-c", "dd if=/dev/urandom of=/data/vda/new bs=1M count=8 && sync"])
    say("the guest wrote 8 MiB of new data")
    before = guest.counters()["vda"]
    second = backup(guest, watch, "second backup")
    after = guest.counters()["vda"]
    vmborg("list", NAME)
    vmborg("status", codes=(0, 1, 2))  # the host may have VMs that nobody backs up
    title("3. The VM is lost: destroyed, undefined, its disks deleted")
    lose(guest)
    title("4. Restore it, and boot what came back")
    since = time.monotonic()
    vmborg("restore", NAME, "--in-place")
    watch.measure("restore", since)
    counter = check_restored(before, after)
    restored = boot_restored(watch)
    watch.measure("the whole demo", begun)
    conclude(first, second, bounds=(before, counter, after), agent=restored, watch=watch)


def start_guest(watch: Stopwatch) -> Guest:
    """Build and boot the guest; return when its agent answers."""
    since = time.monotonic()
    IMAGES.mkdir(parents=True)
    IMAGES.chmod(0o711)
    boot = build_boot()
    kept = Boot(*(Path(shutil.copy(part, IMAGES)) for part in (boot.kernel, boot.initrd)))
    disks = [
        (make_disk(IMAGES / "vda.qcow2", size=1024 * MIB, data=192 * MIB), "qcow2"),
        (make_disk(IMAGES / "vdb.raw", size=256 * MIB, format="raw", data=16 * MIB), "raw"),
        (make_disk(IMAGES / "vdc.qcow2", size=256 * MIB, data=16 * MIB), "qcow2"),
    ]
    specs = [
        DiskSpec(target=target, path=path, format=kind) for target, (path, kind) in zip(TARGETS, disks, strict=True)
    ]
    guest = Guest.define(URI, domain_xml(NAME, boot=kept, disks=specs))
    guest.start()
    guest.wait_agent(180)
    guest.wait_counter_moves()
    watch.measure("guest built, booted, agent answers", since)
    say(f"{NAME} runs; counters on its disks: {guest.counters()}")
    return guest


def configure() -> None:
    """The configuration an administrator would write, and its passphrase."""
    passphrase = STATE / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("only-for-the-demo\n", encoding="utf-8")
    text = f"""\
state_dir: {STATE}/state
hypervisor: {{name: demo-host, uri: "{URI}"}}
repositories:
  main: {{location: {STATE}/repository, passphrase: {{file: {passphrase}}}}}
vms:
  defaults: {{repository: main, quiesce: require}}
"""
    (STATE / "vmborg.yaml").write_text(text, encoding="utf-8")
    say(text)


def vmborg(*arguments: str, codes: tuple[int, ...] = (0,)) -> None:
    """Run the command as a user would, its output shown."""
    say(f"\n$ vmborg {shlex.join(arguments)}")
    argv = [str(VMBORG), "--config", str(STATE / "vmborg.yaml"), *arguments]
    code = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL).returncode
    if code not in codes:
        raise DemoFailed(f"`vmborg {shlex.join(arguments)}` ended with exit code {code}")


def backup(guest: Guest, watch: Stopwatch, what: str) -> dict[str, Any]:
    """Back the guest up while it runs; return the result."""
    say(f"\n$ vmborg --json backup {NAME}")
    since = time.monotonic()
    argv = [str(VMBORG), "--config", str(STATE / "vmborg.yaml"), "--json", "backup", NAME]
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    watch.measure(what, since)
    if done.returncode != 0:
        raise DemoFailed(f"the {what} ended with exit code {done.returncode}: {done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout)["backups"][0]["result"]
    say(
        f"archive {result['archive']}\nconsistency {result['consistency']}, frozen for {result['frozen_ms']} ms, "
        f"{mib(result['original'])} in the archive, {mib(result['stored'])} new in the repository"
    )
    guest.wait_counter_moves()
    overlays = [path.name for path in IMAGES.iterdir() if "vmborg-" in path.name]
    if overlays:
        raise DemoFailed(f"overlays are left: {overlays}")
    say("the guest goes on counting, on its own disks; no overlay is left")
    return result


def lose(guest: Guest) -> None:
    """What nobody wants to see."""
    guest.destroy()
    guest.undefine()
    for target in TARGETS:
        for path in IMAGES.glob(f"{target}.*"):
            path.unlink()
    say(f"domains: {virsh(URI, 'list', '--all', '--name').split()}; disks: {sorted(IMAGES.glob('vd*'))}")


def check_restored(before: int, after: int) -> int:
    """The counters on the restored disks belong to one instant of the second backup."""
    images = {"vda": IMAGES / "vda.qcow2", "vdb": IMAGES / "vdb.raw", "vdc": IMAGES / "vdc.qcow2"}
    counters = read_counters_from_images(images)
    a, b, c = (counters[target] for target in TARGETS)
    say(f"counters on the restored disks: {dict(counters)}; file systems clean: {counters.clean}")
    if not (a >= b >= c and a - c <= 1):
        raise DemoFailed(f"the disks are not of one instant: {a} {b} {c}")
    if not before <= a <= after:
        raise DemoFailed(f"the counter {a} is not between {before} and {after}")
    if not counters.clean:
        raise DemoFailed("e2fsck finds errors on a restored disk")
    return a


def boot_restored(watch: Stopwatch) -> str:
    """Start the restored VM and ask its agent."""
    since = time.monotonic()
    guest = Guest(URI, virsh(URI, "dumpxml", NAME))
    guest.start()
    guest.wait_agent(180)
    guest.wait_counter_moves()
    watch.measure("restored guest booted, agent answers", since)
    code, answer = guest.exec(["sh", "-c", "uname -sr"])
    if code != 0:
        raise DemoFailed(f"the restored guest's agent answers with {code}")
    counters = guest.counters()
    guest.shutdown()
    return f"{answer.strip()}, counters go on at {counters}"


def conclude(
    first: dict[str, Any],
    second: dict[str, Any],
    *,
    bounds: tuple[int, int, int],
    agent: str,
    watch: Stopwatch,
) -> None:
    """The figures, in one place."""
    title("What was shown")
    before, counter, after = bounds
    say(f"archives            {first['archive']}\n                    {second['archive']}")
    say(f"deduplication       {mib(first['original'])} cost {mib(first['stored'])} the first time,")
    say(f"                    {mib(second['original'])} cost {mib(second['stored'])} the second time")
    say(f"frozen              {first['frozen_ms']} ms and {second['frozen_ms']} ms")
    say(f"restored counter    {counter}, between {before} and {after} seen around the second backup")
    say(f"restored guest says {agent}")
    for what, seconds in watch.times.items():
        say(f"{seconds:8.1f} s  {what}")
    say(f"\nThe repository is {STATE}/repository, the VM {NAME} is shut off. `make demo-clean` removes both.")


def clean() -> None:
    """Remove what an earlier demo left: its domain, images and state."""
    if NAME in virsh(URI, "list", "--all", "--name").split():
        guest = Guest(URI, virsh(URI, "dumpxml", NAME))
        guest.destroy()
        guest.undefine()
    for directory in (IMAGES, STATE):
        if directory.exists():
            shutil.rmtree(directory)


def mib(count: int) -> str:
    """Bytes, readable."""
    return f"{count / MIB:.1f} MiB"


def title(text: str) -> None:
    """A chapter."""
    say(f"\n=== {text}")


def say(text: str) -> None:
    """A line, at once: child processes write to the same stream."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
