"""What a host key is, and how it is pinned: only when somebody asks for it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from infra.config.models import Config
from infra.errors import UsageError
from infra.ssh.connection import scan
from infra.ssh.endpoint import Endpoint, HostKey
from infra.ssh.pins import write_pin
from tasks.dumps.hosts import endpoint, find_host, pin_path


@dataclass(frozen=True, slots=True)
class Shown:
    """A key that a server shows now, beside what was pinned."""

    name: str
    place: str
    key: HostKey
    pinned: HostKey | None
    path: Path

    @property
    def known(self) -> bool:
        """Whether it is the pinned one."""
        return self.key == self.pinned


def shown_keys(config: Config, name: str) -> Iterator[Shown]:
    """The keys of the jump host, if there is one, and of the host; each has to be pinned before the next is asked.

    Raises UsageError (a key that stands in the configuration is changed there), HostUnreachable, and what logging in
    at the jump host raises.
    """
    host = find_host(config, name)
    if host.jump is not None:
        jump = endpoint(config, name).jump
        if jump is not None:
            yield _shown(jump, pin_path(config, name, jump=True), written=host.jump.host_key)
    yield _shown(endpoint(config, name), pin_path(config, name), written=host.host_key)


def _shown(place: Endpoint, path: Path, *, written: str | None) -> Shown:
    # Without the pin in the way: what the server prefers to show is what a person compares.
    key = scan(replace(place, pinned=None))
    if written is not None and key != place.pinned:
        raise UsageError(
            f"The host key of {place.name!r} stands in the configuration, and the host shows another one.",
            evidence=f"shown: {key.kind} {key.fingerprint}",
            remedy="If that is right, change host_key in the configuration.",
        )
    return Shown(place.name, place.place, key, place.pinned, path)


def pin(shown: Shown) -> None:
    """Pin it. Raises StorageError."""
    write_pin(shown.path, shown.key)
