"""Run the dashboard until Ctrl-C: python -m tests.dashboard [--clean]. Nothing of it is left afterwards."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from tests.e2e.prefect_server import running_server
from tests.e2e.sources import bare_xml, disk
from tests.e2e.worker import Worker
from tests.guests import Boot, DiskSpec, Guest, build_boot, domain_xml, make_disk, wait_for
from tests.integration.own_libvirtd import own_libvirtd
from tests.integration.vmborg import vmborg

HOST = "demo-host"
STATE = Path("/var/lib/vmborg-dashboard")
RUNNING, IDLE = "vmborg-dashboard-running", "vmborg-dashboard-idle"
PORT = 4200
EVERY_MIN = 5
MIB = 1024**2
_SOON_S = 12
"""A schedule whose minute begins sooner would be missed: deploying takes some seconds."""
_SCHEDULER_ERROR = re.compile(r"^.*(?:ERROR.*chedul|InvalidRequestError).*$", re.MULTILINE)


class DashboardFailed(Exception):
    """Something that the dashboard shows did not happen."""


def main(arguments: list[str]) -> int:
    """Run until Ctrl-C, or clean up; return the exit code."""
    if arguments not in ([], ["--clean"]):
        say("usage: python -m tests.dashboard [--clean]")
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    clean()
    if arguments:
        return 0
    try:
        with everything() as worker:
            watch(worker)
            say("\nCtrl-C ends it and removes everything.")
            while True:
                signal.pause()
    except KeyboardInterrupt:
        say("\nEnded; nothing of it is left.")
        return 0
    except DashboardFailed as error:
        say(f"\nThe dashboard FAILED: {error}")
        return 1
    finally:
        clean()


def _interrupt(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - a signal handler's arguments
    raise KeyboardInterrupt


@contextmanager
def everything() -> Iterator[Worker]:
    """A hypervisor of its own with two VMs, the server, the deployments, a worker."""
    STATE.mkdir(mode=0o711)
    STATE.chmod(0o711)
    say("starting a libvirtd of its own, and two VMs")
    with own_libvirtd() as daemon:
        (STATE / "libvirtd").write_text(daemon.uri, encoding="utf-8")
        with idle_guest(daemon.uri), running_guest(daemon.uri):
            call = vmborg("init", config=configure(daemon.uri))
            require(call.code == 0, call.stderr)
            say("starting the Prefect server and a worker, and deploying")
            home = STATE / "prefect"
            home.mkdir()
            with running_server(home, port=PORT) as api:
                config = configure(daemon.uri, schedules=schedules(datetime.now(UTC)))
                with Worker(api, config, home).serving() as worker:
                    yield worker


@contextmanager
def running_guest(uri: str) -> Iterator[Guest]:
    """A booted VM on two disks, its agent answering; it counts on both."""
    images = STATE / "images"
    images.mkdir(mode=0o711, exist_ok=True)
    boot = build_boot()
    kept = Boot(*(Path(shutil.copy(part, images)) for part in (boot.kernel, boot.initrd)))
    disks = [
        DiskSpec("vda", make_disk(images / "vda.qcow2", size=512 * MIB, data=96 * MIB)),
        DiskSpec("vdb", make_disk(images / "vdb.raw", size=128 * MIB, format="raw", data=8 * MIB), format="raw"),
    ]
    with Guest.define(uri, domain_xml(RUNNING, boot=kept, disks=disks)) as guest:
        guest.start()
        guest.wait_agent(180)
        yield guest


@contextmanager
def idle_guest(uri: str) -> Iterator[Guest]:
    """A VM that is shut off."""
    images = STATE / "images"
    images.mkdir(mode=0o711, exist_ok=True)
    image = make_disk(images / "idle.qcow2", size=64 * MIB, data=16 * MIB)
    with Guest.define(uri, bare_xml(IDLE, disk("vda", image))) as guest:
        yield guest


def configure(uri: str, **more: Any) -> Path:
    """Write the configuration, and return its path."""
    passphrase = STATE / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("only-for-the-dashboard\n", encoding="utf-8")
    settings: dict[str, Any] = {
        "state_dir": str(STATE / "state"),
        "hypervisor": {"name": HOST, "uri": uri},
        "repositories": {"main": {"location": str(STATE / "repository"), "passphrase": {"file": str(passphrase)}}},
        "vms": {"defaults": {"repository": "main", "min_free": "64MiB", "min_free_start": "128MiB"}},
    }
    path = STATE / "vmborg.yaml"
    path.write_text(json.dumps({**settings, **more}, indent=2) + "\n", encoding="utf-8")
    return path


def schedules(now: datetime) -> dict[str, str]:
    """The fleet is backed up every five minutes, from the next minute that does not begin too soon on."""
    first = int(now.timestamp() + 60 + _SOON_S) // 60
    every = {"backup_fleet": first, "coverage": first + 2}
    return {name: f"{minute % EVERY_MIN}-59/{EVERY_MIN} * * * *" for name, minute in every.items()}


def watch(worker: Worker) -> None:
    """Say where it is, and wait for the run that the schedule starts. Raises DashboardFailed."""
    root = worker.dashboard.api.removesuffix("/api")
    begun = time.monotonic()
    say(f"\nThe dashboard is at {root}")
    say("  Artifacts > fleet: is everything safe?    Runs: what happened")
    say("  Deployments > backup-vm > Run: back one VM up")
    say(f"  on a terminal: {Path(sys.prefix) / 'bin' / 'vmborg'} --config {worker.config} status")
    say("\nwaiting for the schedule to start the first backup")

    def started() -> str:
        return next((run["id"] for run in worker.runs("backup-fleet") if run["start_time"]), "")

    fleet = wait_for(started, timeout=180, what="a run of the schedule", interval=0.5)
    say(f"after {time.monotonic() - begun:.0f} s the schedule started it: {root}/v2/runs/flow-run/{fleet}")
    run = worker.dashboard.wait_state(fleet, "COMPLETED", timeout=300)
    say(f"{run['name']}: {run['state_name']}, {run['state']['message']}")
    found = vmborg("--json", "list", config=worker.config).document["archives"]
    require(len(found) == len((RUNNING, IDLE)), f"there are {len(found)} archives")
    say("\n".join(f"  archive {each['archive']}" for each in found))
    errors = _SCHEDULER_ERROR.findall((STATE / "prefect" / "server.log").read_text(errors="replace"))
    require(not errors, f"the server's log has errors of the scheduler: {errors[:3]}")
    say("the server's log holds no error of the scheduler")


def require(condition: object, otherwise: str) -> None:
    """Raise DashboardFailed unless the condition holds."""
    if not condition:
        raise DashboardFailed(otherwise)


def clean() -> None:
    """Remove what is there; after a kill -9 that is a guest's process, libvirtd's folder and our own."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.startswith(f"guest={RUNNING},") for word in argv):
            os.kill(int(process.name), signal.SIGKILL)
    folder = libvirtd_folder()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if STATE.exists():
        shutil.rmtree(STATE)


def libvirtd_folder() -> Path | None:
    """The folder of its libvirtd, None when there is none."""
    uri = STATE / "libvirtd"
    return Path(uri.read_text(encoding="utf-8").rpartition("socket=")[2]).parents[1] if uri.exists() else None


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
