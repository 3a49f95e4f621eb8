"""What every test with real guests shares: daemons, something to boot, a place for images, guests that go away."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.guests import Boot, Daemons, DiskSpec, Guest, domain_xml, make_disk
from tests.guests.fixtures import boot, daemons, images

__all__ = ["boot", "daemons", "images"]
MIB = 1024**2


GuestFactory = Callable[..., Guest]
"""Calls `make_guest`, see `guest_factory`."""


@pytest.fixture
def guest_factory(daemons: Daemons, boot: Boot, images: Path) -> Iterator[GuestFactory]:
    """Makes guests that are destroyed and undefined after the test."""
    with ExitStack() as guests:

        def make_guest(
            name: str | None = None,
            *,
            disks: list[DiskSpec] | None = None,
            start: bool = True,
            uri: str = daemons.uri,
            **options: Any,
        ) -> Guest:
            """Define a guest, start it, wait for its agent (if it has one) and its first counter.

            Without `disks` it has vda, vdb and vdc: ext4 of 64 MiB each, qcow2. `options` go to `domain_xml`.
            """
            name = name or f"test-{uuid.uuid4().hex[:8]}"
            folder = images / uuid.uuid4().hex[:8]
            folder.mkdir()
            log = options.pop("serial_log", folder / "console.log")
            disks = three_disks(folder) if disks is None else disks
            guest = guests.enter_context(
                Guest.define(uri, domain_xml(name, boot=boot, disks=disks, serial_log=log, **options))
            )
            if start:
                guest.start()
                if options.get("agent", True):
                    guest.wait_agent()
                guest.wait_ready()
            return guest

        yield make_guest


def three_disks(folder: Path) -> list[DiskSpec]:
    """Three small qcow2 disks with some files: vda, vdb, vdc."""
    return [
        DiskSpec(target, make_disk(folder / f"{target}.qcow2", size=64 * MIB, data=4 * MIB, seed=seed))
        for seed, target in enumerate(("vda", "vdb", "vdc"))
    ]
