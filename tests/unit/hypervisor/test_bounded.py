"""Calls that are not waited for for ever."""

import threading

import pytest

from infra.errors import DomainBusy, DomainNotFound
from infra.hypervisor.bounded import bounded


def test_an_answer_is_handed_on() -> None:
    """What the call returns, None too, is returned; what it raises is raised."""

    def fail() -> None:
        raise DomainNotFound("gone")

    assert bounded("Asking", lambda: 7) == 7
    assert bounded("Asking", lambda: None) is None
    with pytest.raises(DomainNotFound, match="gone"):
        bounded("Asking", fail)


def test_no_answer_is_an_error() -> None:
    """A call that does not come back is given up, with the attempt's name; it is the domain that is busy."""
    never = threading.Event()
    with pytest.raises(DomainBusy, match="Asking failed: libvirt did not answer"):
        bounded("Asking", lambda: never.wait(60), seconds=0.05)
    never.set()
