"""What happens to a VM while it is backed up, seen from a thread beside it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.guests import Guest, virsh


@contextmanager
def repeating(action: Callable[[], None], *, interval: float = 0.05) -> Iterator[None]:
    """Do something again and again beside the block; what it raises is raised at the end."""
    done = threading.Event()
    failures: list[BaseException] = []

    def loop() -> None:
        while not done.wait(interval):
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)
                return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]


class Sightings:
    """The sources of every disk of a running VM, as they were seen while a block ran."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.seen: dict[str, set[str]] = {}

    def look(self) -> None:
        """Ask libvirt once."""
        for line in virsh(self._guest.uri, "domblklist", self._guest.uuid).splitlines():
            target, _, source = line.strip().partition(" ")
            self.seen.setdefault(target, set()).add(source.strip())
