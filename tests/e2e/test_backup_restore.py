"""A running guest on three disks: backed up live, restored under another name, compared byte for byte, booted."""

import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from infra.process import Child, run, spawn
from tests.e2e.checks import assert_on_bases, sources
from tests.e2e.site import Site
from tests.guests import Guest, read_counters_from_images, virsh, wait_for

pytestmark = pytest.mark.e2e

FORMATS = {"vda": "qcow2", "vdb": "raw", "vdc": "qcow2"}


def test_a_live_backup_restores_to_the_very_bytes_and_boots(
    guest: Guest, site: Site, guest_images: Path, tmp_path: Path
) -> None:
    """The archive of a running guest is its frozen bases: same bytes, one instant, clean, bootable; the VM goes on."""
    bases = sources(guest)
    before = guest.counters()["vda"]
    with held_backup(site, guest):
        for target, path in bases.items():
            reference = str(tmp_path / f"{target}.raw")
            run(["qemu-img", "convert", "-U", "-f", FORMATS[target], "-O", "raw", path, reference], timeout=120)
    after = guest.counters()["vda"]
    assert_on_bases(site, guest, bases, [guest_images])
    guest.wait_counter_moves()

    site.ok("restore", guest.name, "--as", "e2e-restored", "--to", guest_images / "restored")

    restored = Guest(guest.uri, virsh(guest.uri, "dumpxml", "--security-info", "e2e-restored"))
    with restored:
        copies = sources(restored, inactive=True)
        for target, path in copies.items():
            compared = [
                "qemu-img",
                "compare",
                "-f",
                FORMATS[target],
                "-F",
                "raw",
                path,
                str(tmp_path / f"{target}.raw"),
            ]
            assert "identical" in run(compared, timeout=120).stdout
        counters = read_counters_from_images({target: Path(path) for target, path in copies.items()})
        assert counters.clean
        assert counters["vda"] >= counters["vdb"] >= counters["vdc"]
        assert counters["vda"] - counters["vdc"] <= 1
        assert before <= counters["vda"] <= after
        assert restored.uuid != guest.uuid
        restored.start()
        restored.wait_agent(120)
        restored.wait_counter_moves()
    assert sources(guest) == bases


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_backup_with_the_vm_put_back(
    number: signal.Signals, guest: Guest, site: Site, guest_images: Path
) -> None:
    """SIGTERM, Ctrl-C or a hang-up, sent again and again, ends a copy in 30 s; the VM is back, no archive is left."""
    bases = sources(guest)
    known = len(site.repository.archives())

    with held_backup(site, guest, expect=128 + number) as process:
        process.popen.send_signal(number)
        began = time.monotonic()
        threading.Thread(target=_again_and_again, args=(process, number), daemon=True).start()
    assert time.monotonic() - began < 30

    assert_on_bases(site, guest, bases, [guest_images])
    guest.wait_counter_moves()
    assert len(site.repository.archives()) == known


def _again_and_again(process: Child, number: signal.Signals) -> None:
    """An impatient person."""
    while process.popen.returncode is None:
        time.sleep(0.1)
        process.popen.send_signal(number)


@contextmanager
def held_backup(site: Site, guest: Guest, *, expect: int = 0) -> Generator[Child]:
    """A backup whose borg create stands still for the length of the block, the guest on its overlays."""
    argv = [str(Path(sys.executable).with_name("vmborg")), "--config", str(site.config), "backup", guest.name]
    with spawn(argv) as process:
        creating = wait_for(lambda: borg_create(process.pid), timeout=90, what="borg create", interval=0.01)
        creating.suspend()
        try:
            wait_for(lambda: all(".vmborg-" in path for path in sources(guest).values()), timeout=10, what="overlays")
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):  # a signal may have ended it, at any moment
                creating.resume()
        _, errors = process.popen.communicate(timeout=120)
        assert process.popen.returncode == expect, errors


def borg_create(parent: int) -> psutil.Process | None:
    """The borg create below a process, if it runs now."""
    for child in psutil.Process(parent).children():
        try:
            if "create" in child.cmdline():
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def test_an_unknown_vm_changes_nothing(site: Site, guest: Guest) -> None:
    """A misspelt name is answered with the close ones, before anything is started."""
    call = site.vmborg("backup", guest.name + "x")

    assert call.code == 1
    assert guest.name in call.stderr
    assert not list((site.root / "state").glob("journal/*"))
