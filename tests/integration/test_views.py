"""Archives shown as disks without extracting them, in both layouts, on a real borg and a real FUSE."""

import hashlib
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.journal.views import ViewJournal
from infra.process import run
from tasks.views.opening import chosen_archive
from tasks.views.recover import recover_views
from tasks.views.view import PLACES, View, close_view, is_alive, open_view
from tests.guests import Daemons, DiskSpec, image_dir
from tests.guests.waiting import wait_for
from tests.integration.bare import image_holds
from tests.integration.restoring import MIB, RestoreHost, restore_host, write

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def host(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with archives of one VM of three disks: a clone, a raw image and a qcow2 image."""
    assert daemons is not None
    with image_dir("views") as root, restore_host(root) as place:
        template = place.image("template.qcow2", fill=5)
        clone = place.image("clone.qcow2", backing=template)
        write(clone, "qcow2", 6, offset=MIB)
        raw, plain = place.image("b.raw", image_format="raw", fill=8), place.image("c.qcow2", fill=9)
        whole = place.define([DiskSpec("vda", clone), DiskSpec("vdb", raw, format="raw")], name="whole")
        place.factory.make(whole)
        place.factory.make(place.define([DiskSpec("vda", plain)], name="parts"), segments=True)
        yield place


@pytest.fixture
def nothing_left(host: RestoreHost) -> Iterator[None]:
    """After the test there is no view."""
    yield
    assert list((host.root / "state" / "views").iterdir()) == []


def content(path: str, image_format: str) -> str:
    """A checksum of what a guest reads of an image."""
    target = Path(f"/var/tmp/{Path(path).name}.content")
    run(["qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", path, str(target)], timeout=120)
    try:
        return hashlib.sha256(target.read_bytes()).hexdigest()
    finally:
        target.unlink()


@contextmanager
def opened(host: RestoreHost, vm: str) -> Generator[View]:
    """A view of the VM's archive, closed when the caller is done."""
    with chosen_archive(host.config, f"{host.prefix}-{vm}") as chosen:
        yield open_view(chosen.repository, chosen.opened.manifest, chosen.entry, chosen.journal)
        close_view(chosen.entry, chosen.journal)
    assert_gone(chosen.entry.number)


def assert_gone(number: str) -> None:
    """Neither folder nor mount of this view is there."""
    assert not (PLACES / number).exists()
    assert number not in Path("/proc/self/mounts").read_text(encoding="utf-8")


@pytest.mark.usefixtures("nothing_left")
def test_whole_images_are_shown_as_they_are(host: RestoreHost) -> None:
    """Each image of a chain is there, in its own format, readable for root and the owner alone."""
    with opened(host, "whole") as view:
        clone, raw = view.disks
        assert [(disk.target, len(disk.chain)) for disk in view.disks] == [("vda", 2), ("vdb", 1)]
        assert image_holds(clone.chain[1].path, "qcow2", 5)
        assert content(raw.chain[0].path, "raw") == content(str(host.images / "b.raw"), "raw")
        assert all(Path(path).stat().st_mode & 0o077 == 0 for path in view.paths)
        assert is_alive(view.entry)


@pytest.mark.usefixtures("nothing_left")
def test_segments_are_shown_as_one_disk(host: RestoreHost) -> None:
    """The disk that was archived in segments is one raw file with the same content."""
    with opened(host, "parts") as view:
        (disk,) = view.disks
        assert disk.chain[0].format == "raw"
        assert content(disk.chain[0].path, "raw") == content(str(host.images / "c.qcow2"), "qcow2")
    assert ViewJournal(host.config.state.views).entries() == ((), ())


def test_a_view_that_is_killed_at_any_step_is_taken_away(host: RestoreHost) -> None:
    """kill -9 at steps spread over its life: `recover` leaves no mount, no folder and no entry."""
    folder = host.root / "state" / "views"
    words = [sys.executable, "-m", "tests.integration.dying_view", str(host.config_path), f"{host.prefix}-parts"]
    steps = int(run([*words, "0"], timeout=120).stdout)
    for moment in range(2, steps, max(1, steps // 5)):
        assert run([*words, str(moment)], timeout=120, check=False).returncode == -signal.SIGKILL
        numbers = [path.stem for path in folder.glob("*.lock")]
        assert [each.error for each in recover_views(host.config)] in ([], [""])
        assert list(folder.glob("*.json")) == []
        for number in numbers:
            assert_gone(number)
    for lock in folder.iterdir():
        assert lock.suffix == ".lock"  # of one that died before it had an entry
        lock.unlink()


@pytest.mark.usefixtures("nothing_left")
def test_a_view_whose_mount_died_is_taken_away(host: RestoreHost) -> None:
    """A mount whose server was killed is noticed, and goes."""
    with opened(host, "whole") as view:
        server = next(
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if view.entry.place in path.read_bytes().decode("utf-8", "replace") and b"borg" in path.read_bytes()
        )
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: not is_alive(view.entry), timeout=30, what="the end of the mount")
