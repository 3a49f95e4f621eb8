"""The frozen window on a real guest with a real agent: what counts as frozen, and that nothing stays so."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from infra.errors import CommandFailed, FreezeFailed, ThawUnconfirmed
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.freeze import FrozenWindow, frozen_window
from infra.model import Consistency, Quiesce
from infra.process import spawn
from tests.guests import Boot, Daemons, Guest, domain_xml, virsh, wait_for
from tests.integration.conftest import three_disks

pytestmark = pytest.mark.integration

URI = "qemu:///system"
Window = Callable[..., AbstractContextManager[FrozenWindow]]


@pytest.fixture(scope="module")
def running(daemons: Daemons, boot: Boot, images: Path) -> Iterator[Guest]:  # noqa: ARG001 - must run
    """One guest with three file systems for all tests of this module."""
    folder = images / "freeze"
    folder.mkdir()
    xml = domain_xml("act-freeze", boot=boot, disks=three_disks(folder), serial_log=folder / "console.log")
    with Guest.define(URI, xml) as guest:
        guest.start()
        guest.wait_agent()
        guest.wait_ready()
        yield guest


@pytest.fixture
def guest(running: Guest) -> Iterator[Guest]:
    """The guest, thawed and counting before and after each test, with no watchdog left."""
    assert status(running) == "thawed"
    yield running
    running.wait_agent()
    assert status(running) == "thawed"
    running.wait_counter_moves()
    wait_for(lambda: not watchdogs(running), timeout=15, what="end of the watchdogs")


@pytest.fixture
def domain(guest: Guest) -> Iterator[Domain]:
    """The guest as vmborg sees it."""
    with Hypervisor.open(URI) as hypervisor:
        yield hypervisor.by_uuid(guest.uuid)


@pytest.fixture
def window(domain: Domain) -> Window:
    """A window on the guest with the usual settings."""

    def open_window(policy: Quiesce = Quiesce.TRY, **settings: object) -> AbstractContextManager[FrozenWindow]:
        return frozen_window(domain, policy=policy, **({"agent_timeout": 5, "deadline": 20.0} | settings))  # type: ignore[arg-type]

    return open_window


def status(guest: Guest) -> object:
    """What the agent says."""
    return guest.agent("guest-fsfreeze-status")


def watchdogs(guest: Guest) -> list[psutil.Process]:
    """The watchdogs of this guest that run now."""
    found = psutil.process_iter(["cmdline"])
    return [
        each
        for each in found
        if "infra.hypervisor.watchdog" in (line := each.info["cmdline"] or []) and guest.uuid in line
    ]


def pause_agent(guest: Guest, seconds: int) -> None:
    """Stop the agent's process for a while; it is stopped when this returns."""
    assert guest.exec(["agent-pause", str(seconds)])[0] == 0
    wait_for(lambda: not answers(guest), timeout=60, what="the stopped agent")


def answers(guest: Guest) -> bool:
    """Whether the agent answers within a second."""
    try:
        guest.agent("guest-ping", timeout=1)
    except CommandFailed:
        return False
    return True


def test_the_guest_stands_still_in_the_window(guest: Guest, window: Window) -> None:
    """All file systems are frozen inside, thawed outside, and the time between is measured."""
    began = time.monotonic()
    with window(Quiesce.REQUIRE) as inside:
        assert status(guest) == "frozen"
        assert inside.frozen
    elapsed_ms = (time.monotonic() - began) * 1000
    assert status(guest) == "thawed"
    assert inside.report.consistency is Consistency.AGENT
    assert inside.report.filesystems == 3
    assert inside.report.thaw_confirmed
    assert 0 < inside.report.frozen_ms <= elapsed_ms


def test_only_the_file_systems_asked_for_are_frozen(guest: Guest, window: Window) -> None:
    """A list of mount points, repetitions aside, is what is frozen."""
    with window(Quiesce.REQUIRE, mountpoints=["/data/vda", "/data/vdb", "/data/vda"]) as inside:
        assert status(guest) == "frozen"
    assert inside.report.filesystems == 2


@pytest.mark.parametrize("mountpoints", [["/nonexist"], ["/data/vda", "/nonexist"]])
def test_a_freeze_that_froze_less_does_not_count(guest: Guest, window: Window, mountpoints: list[str]) -> None:
    """An unknown mount point is no error to libvirt; `try` goes on without a freeze, `require` fails; both thawed."""
    with window(mountpoints=mountpoints) as inside:
        assert status(guest) == "thawed"
        assert not inside.frozen
    assert inside.report.consistency is Consistency.CRASH
    assert f"the agent froze {len(mountpoints) - 1 or 'no file system'}" in inside.report.reason
    with pytest.raises(FreezeFailed), window(Quiesce.REQUIRE, mountpoints=mountpoints):
        pytest.fail("the block ran")


def test_never_means_never(guest: Guest, window: Window) -> None:
    """The policy `never` asks the agent nothing."""
    with window(Quiesce.NEVER) as inside:
        assert not watchdogs(guest)
        assert status(guest) == "thawed"
    assert inside.report.consistency is Consistency.CRASH


def test_a_paused_guest_is_not_frozen(guest: Guest, window: Window) -> None:
    """It cannot answer: `try` goes on, `require` fails, at once."""
    virsh(URI, "suspend", guest.uuid)
    try:
        with window() as inside:
            pass
        assert inside.report.reason == "the guest is paused"
        with pytest.raises(FreezeFailed), window(Quiesce.REQUIRE):
            pytest.fail("the block ran")
    finally:
        virsh(URI, "resume", guest.uuid)


def test_somebody_elses_freeze_is_left_alone(guest: Guest, window: Window) -> None:
    """It is not ours to end: `try` goes on, `require` fails, and the guest is frozen still."""
    guest.agent("guest-fsfreeze-freeze")
    try:
        with window() as inside:
            pass
        assert "by somebody else" in inside.report.reason
        with pytest.raises(FreezeFailed, match="require"), window(Quiesce.REQUIRE):
            pytest.fail("the block ran")
        assert status(guest) == "frozen"
    finally:
        guest.agent("guest-fsfreeze-thaw")


def test_somebody_who_freezes_first_is_left_alone(guest: Guest, window: Window) -> None:
    """A freeze that comes between our question and our request is not ours either."""
    try:
        with window(on_freeze=lambda: guest.agent("guest-fsfreeze-freeze")) as inside:
            assert status(guest) == "frozen"
        assert "by somebody else" in inside.report.reason
        assert status(guest) == "frozen"
    finally:
        guest.agent("guest-fsfreeze-thaw")


def test_a_freeze_that_the_agent_refuses(guest: Guest, window: Window) -> None:
    """A file system that cannot be frozen fails the whole freeze; none stays frozen."""
    assert guest.exec(["mount", "-t", "tmpfs", "none", "/data"])[0] == 0  # now the agent finds none of them
    try:
        with window() as inside:
            assert status(guest) == "thawed"
    finally:
        assert guest.exec(["umount", "/data"])[0] == 0
    assert "the freeze failed" in inside.report.reason
    assert "/data/vd" in inside.report.reason


def test_an_agent_that_does_not_answer_is_not_asked_to_freeze(guest: Guest, window: Window) -> None:
    """Nothing is sent that it could do later."""
    pause_agent(guest, 6)
    asked: list[int] = []
    with window(agent_timeout=1, on_freeze=lambda: asked.append(1)) as inside:
        pass
    assert "does not answer" in inside.report.reason
    assert asked == []
    guest.wait_agent()
    assert status(guest) == "thawed"


def test_an_agent_that_hangs_in_the_freeze_is_thawed_when_it_goes_on(guest: Guest, window: Window) -> None:
    """The late freeze: the request lies in the channel, is carried out later, and thawed before the window opens."""
    with window(agent_timeout=2, deadline=40.0, on_freeze=lambda: pause_agent(guest, 6)) as inside:
        assert status(guest) == "thawed"
    assert "the freeze failed" in inside.report.reason


def test_the_watchdog_goes_on_when_we_give_up(guest: Guest, window: Window) -> None:
    """An agent that hangs past the deadline may freeze later: we say so, and the watchdog thaws it."""
    with (
        pytest.raises(ThawUnconfirmed, match="may still be frozen"),
        window(agent_timeout=1, deadline=2.0, on_freeze=lambda: pause_agent(guest, 9)),
    ):
        pytest.fail("the block ran")
    assert len(watchdogs(guest)) == 1
    guest.wait_agent()
    guest.wait_counter_moves(console=True)


def test_an_error_in_the_window_thaws(guest: Guest, window: Window) -> None:
    """Whatever happens inside, the guest is thawed, and the error goes on."""

    def fail_inside() -> None:
        with window():
            assert status(guest) == "frozen"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert status(guest) == "thawed"


def stay_too_long(guest: Guest, opened: AbstractContextManager[FrozenWindow]) -> FrozenWindow:
    """Stay in the window until the guest is thawed."""
    with opened as inside:
        assert status(guest) == "frozen"
        wait_for(lambda: status(guest) == "thawed", timeout=15, what="the watchdog's thaw")
    return inside


def test_at_the_deadline_the_watchdog_thaws(guest: Guest, window: Window) -> None:
    """A window that lasts too long loses its freeze: `try` records a crash, `require` fails."""
    inside = stay_too_long(guest, window(deadline=1.0))
    assert inside.report.consistency is Consistency.CRASH
    assert inside.report.frozen_ms >= 1000
    with pytest.raises(FreezeFailed) as caught:
        stay_too_long(guest, window(Quiesce.REQUIRE, deadline=1.0))
    assert "thawed before the snapshot's end" in caught.value.evidence


def test_a_killed_run_leaves_nothing_frozen(guest: Guest) -> None:
    """kill -9 of the freezing process: the watchdog, deaf to signals that end a run, thaws at once."""
    argv = [sys.executable, "-m", "tests.integration.freezing", URI, guest.uuid, "600"]
    with spawn(argv, cwd=str(Path(__file__).parents[2])) as run:
        assert run.stdout.readline() == "in the window\n"
        assert status(guest) == "frozen"
        (watchdog,) = watchdogs(guest)
        assert os.getsid(watchdog.pid) != os.getsid(run.pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            watchdog.send_signal(number)
        run.kill()
        wait_for(lambda: status(guest) == "thawed", timeout=15, what="the watchdog's thaw")


def test_a_guest_that_goes_down_in_the_window(guest: Guest, window: Window) -> None:
    """Nothing is left to thaw: the window ends, and is no agent's freeze."""
    with window() as inside:
        guest.destroy()
    assert inside.report.consistency is Consistency.CRASH
    assert inside.report.thaw_confirmed
    guest.start()
    guest.wait_agent()
    guest.wait_ready()
    assert guest.exec(["true"]) == (0, "")
