"""What every test with real guests shares: daemons, something to boot, a place for images, guests that go away."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.guests import Boot, Daemons, DiskSpec, Guest, build_boot, domain_xml, ensure_daemons, image_dir, make_disk

MIB = 1024**2


GuestFactory = Callable[..., Guest]
"""Calls `make_guest`, see `guest_factory`."""


@pytest.fixture(scope="session")
def daemons() -> Daemons:
    """Running libvirt daemons. They go on after the tests: others on this host may use them by then."""
    return ensure_daemons()


@pytest.fixture(scope="session")
def boot() -> Boot:
    """Kernel and initial RAM disk of the guests, built once a machine."""
    return build_boot()


@pytest.fixture(scope="session")
def images() -> Iterator[Path]:
    """A directory for images that qemu may read; each guest of `guest_factory` has a folder of its own in it."""
    with image_dir() as path:
        yield path


@pytest.fixture
def guest_factory(daemons: Daemons, boot: Boot, images: Path) -> Iterator[GuestFactory]:  # noqa: ARG001 - must run
    """Makes guests that are destroyed and undefined after the test."""
    with ExitStack() as guests:

        def make_guest(
            name: str | None = None,
            *,
            disks: list[DiskSpec] | None = None,
            start: bool = True,
            uri: str = "qemu:///system",
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
