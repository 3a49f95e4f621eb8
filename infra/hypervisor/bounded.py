"""Calling into libvirt without waiting for ever.

libvirt waits without limit for a qemu that does not answer (a stopped process, storage that hangs), and Python heeds no
signal while its main thread is inside the library. So each call runs in a thread of its own, and only so long is waited
for it. What it was doing then goes on there; nobody knows whether it will still be carried out.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from infra.errors import DomainBusy

CALL_S = 60.0
"""Seconds that a call may take. libvirt gives up after 30 when another call holds the domain (qemu_domainjob.c)."""

START_S = 900.0
"""Seconds that a start may take: a large guest's memory is made ready first."""

T = TypeVar("T")


def bounded(what: str, call: Callable[[], T], *, seconds: float = CALL_S) -> T:
    """What `call` returns or raises. Raises DomainBusy when it takes longer than `seconds`."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            errors.append(error)

    thread = threading.Thread(target=run, name="libvirt-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if results:
        return results[0]
    raise DomainBusy(
        f"{what} failed: libvirt did not answer within {seconds:g} s.",
        evidence="the call was given up; it may be carried out still",
        remedy="Look whether qemu of this domain and its storage answer (virsh domblkinfo, dmesg), then run "
        "`vmborg recover`.",
    )
