"""A daemon that goes away and comes back."""

import time
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest

from infra.errors import HypervisorUnreachable
from infra.hypervisor import connection
from infra.hypervisor.connection import Domain, Hypervisor, Link
from infra.model import DomainState
from tests.integration.own_libvirtd import OwnLibvirtd

pytestmark = pytest.mark.integration

SMALL = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>
    <os><type arch='x86_64' machine='pc'>hvm</type></os>
    <devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""


@pytest.fixture
def domain(daemon: OwnLibvirtd) -> Iterator[Domain]:
    """A paused domain, looked up on a connection made before anything happens to the daemon."""
    with Hypervisor.open(daemon.uri) as hypervisor:
        found = hypervisor.define(SMALL.format(name=f"read-{uuid4().hex[:8]}"))
        found.start(paused=True)
        yield found
    with Hypervisor.open(daemon.uri) as hypervisor:
        left = hypervisor.by_uuid(found.uuid)
        if left.live_xml():
            left.destroy()
        left.undefine()


def test_reading_goes_on_after_a_restart(daemon: OwnLibvirtd, domain: Domain) -> None:
    """After libvirtd was killed and started again, a domain that was found before is read as if nothing was."""
    uuid, before = domain.uuid, domain.inactive_xml()
    daemon.kill()
    daemon.start()
    assert domain.state() is DomainState.PAUSED
    assert (domain.uuid, domain.inactive_xml()) == (uuid, before)
    assert domain.live_xml()


def test_reading_waits_for_a_daemon_that_is_starting(daemon: OwnLibvirtd, domain: Domain) -> None:
    """A read that finds the daemon gone waits a few seconds for it to come back."""
    answers: list[bool] = []
    reader = Thread(target=lambda: answers.append(domain.persistent()))
    daemon.kill()
    reader.start()
    daemon.start()
    reader.join(timeout=30)
    assert answers == [True]


def test_a_daemon_that_stays_away_is_an_error_in_time(
    daemon: OwnLibvirtd, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read gives up with HypervisorUnreachable after the wait, saying what to start; the connection heals later."""
    monkeypatch.setattr(connection, "RECONNECT_WAIT", 1.0)
    daemon.kill()
    began = time.monotonic()
    try:
        with pytest.raises(HypervisorUnreachable) as caught:
            domain.state()
        assert 1.0 <= time.monotonic() - began < 5.0
        assert caught.value.transient
        assert "libvirtd" in caught.value.remedy
    finally:
        daemon.start()
    assert domain.state() is DomainState.PAUSED


def test_acting_on_a_broken_connection_is_sent_once_on_a_new_one(daemon: OwnLibvirtd, domain: Domain) -> None:
    """An act after a restart finds the connection broken before anything is sent, and is carried out."""
    daemon.kill()
    daemon.start()
    domain.resume()
    assert domain.state() is DomainState.RUNNING


def test_defining_after_a_restart_is_sent_once_on_a_new_connection(daemon: OwnLibvirtd) -> None:
    """A definition that follows a restart reaches the new daemon."""
    with Hypervisor.open(daemon.uri) as hypervisor:
        daemon.kill()
        daemon.start()
        domain = hypervisor.define(SMALL.format(name=f"read-{uuid4().hex[:8]}"))
        assert hypervisor.find(domain.name) == domain
        domain.undefine()


class DyingCall:
    """A question during which the daemon dies, the first time that it is asked."""

    def __init__(self, daemon: OwnLibvirtd, uuid: str) -> None:
        self.calls = 0
        self.died = Event()
        self._daemon = daemon
        self._uuid = uuid

    def __call__(self, raw: Any) -> str:
        """Ask libvirt for the domain's name."""
        self.calls += 1
        if self.calls == 1:
            self._daemon.kill()
            self.died.set()
        return raw.lookupByUUIDString(self._uuid).name()


def test_an_act_is_never_repeated(daemon: OwnLibvirtd, domain: Domain) -> None:
    """When the daemon dies under a call that acts, it is given up."""
    link, call = Link(daemon.uri), DyingCall(daemon, domain.uuid)
    try:
        with pytest.raises(HypervisorUnreachable):
            link.act("Asking", call)
    finally:
        link.close()
        daemon.start()
    assert call.calls == 1


def test_a_read_is_repeated(daemon: OwnLibvirtd, domain: Domain) -> None:
    """When the daemon dies under a call that reads, it is done once more."""
    link, call = Link(daemon.uri), DyingCall(daemon, domain.uuid)
    answers: list[str] = []
    reader = Thread(target=lambda: answers.append(link.read("Asking", call)))
    reader.start()
    assert call.died.wait(20)
    daemon.start()  # here: it would end with the thread that starts it
    reader.join(60)
    link.close()
    assert answers == [domain.name]
    assert call.calls == 2


def test_threads_share_one_new_connection(daemon: OwnLibvirtd, domain: Domain) -> None:
    """Many threads that find the connection broken at once all get their answer."""
    daemon.kill()
    daemon.start()
    states: list[DomainState] = []
    threads = [Thread(target=lambda: states.append(domain.state())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert states == [DomainState.PAUSED] * 8


def test_a_closed_hypervisor_is_not_opened_again(daemon: OwnLibvirtd) -> None:
    """After close, which may be called twice, every call raises HypervisorUnreachable."""
    hypervisor = Hypervisor.open(daemon.uri)
    hypervisor.close()
    hypervisor.close()
    with pytest.raises(HypervisorUnreachable, match="closed"):
        hypervisor.domains()
