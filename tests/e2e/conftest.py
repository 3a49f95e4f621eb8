"""What the end-to-end tests share: the daemons, a booted guest on three disks of two formats, an installation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, make_site
from tests.e2e.sources import Sources
from tests.guests import Boot, Daemons, DiskSpec, Guest, domain_xml, make_disk
from tests.guests.fixtures import boot, daemons, images

__all__ = ["boot", "daemons", "images"]
MIB = 1024**2


def three_disks(directory: Path) -> list[DiskSpec]:
    """A qcow2, a raw and a qcow2 disk with some data."""
    return [
        DiskSpec("vda", make_disk(directory / "a.qcow2", size=256 * MIB, data=32 * MIB)),
        DiskSpec("vdb", make_disk(directory / "b.raw", size=128 * MIB, format="raw", data=8 * MIB), format="raw"),
        DiskSpec("vdc", make_disk(directory / "c.qcow2", size=128 * MIB, data=8 * MIB)),
    ]


@pytest.fixture(scope="module")
def site(daemons: Daemons, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A fresh installation with an empty repository, for one file of tests."""
    return make_site(tmp_path_factory.mktemp("site"), daemons.uri)


@pytest.fixture(scope="module")
def host(daemons: Daemons, prefect_server: str) -> Iterator[Sources]:
    """An installation that uses a Prefect server, and domains without an operating system; for one file of tests."""
    with Sources(daemons.uri, prefect_server) as sources:
        yield sources


@pytest.fixture(scope="module")
def guest_images(images: Path, request: pytest.FixtureRequest) -> Path:
    """Where the images of `guest` are, and its overlays while it is backed up."""
    directory = images / request.module.__name__.rsplit(".", maxsplit=1)[-1]
    directory.mkdir()
    return directory


@pytest.fixture(scope="module")
def guest(daemons: Daemons, boot: Boot, guest_images: Path) -> Iterator[Guest]:
    """A running guest that counts on three disks, for one file of tests: each leaves it running on its bases."""
    log = guest_images / "console.log"
    xml = domain_xml(guest_images.name, boot=boot, disks=three_disks(guest_images), serial_log=log)
    with Guest.define(daemons.uri, xml) as running:
        running.start()
        running.wait_agent(120)
        running.wait_counter_moves()
        yield running
