"""A booted three-disk guest and a site around it, shared by the tests that leave it running."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, make_site
from tests.guests import Boot, DiskSpec, Guest, domain_xml, make_disk

MIB = 1024**2


def three_disks(directory: Path) -> list[DiskSpec]:
    """A qcow2, a raw and a qcow2 disk with some data."""
    return [
        DiskSpec(target="vda", path=make_disk(directory / "a.qcow2", size=256 * MIB, data=32 * MIB), format="qcow2"),
        DiskSpec(
            target="vdb", path=make_disk(directory / "b.raw", size=128 * MIB, format="raw", data=8 * MIB), format="raw"
        ),
        DiskSpec(target="vdc", path=make_disk(directory / "c.qcow2", size=128 * MIB, data=8 * MIB), format="qcow2"),
    ]


@pytest.fixture
def site(daemons: str, tmp_path: Path) -> Site:
    """A fresh installation with an empty repository."""
    return make_site(tmp_path / "site", daemons)


@pytest.fixture
def three_disk_guest(daemons: str, boot: Boot, images: Path) -> Iterator[Guest]:
    """A running guest that counts on three disks."""
    xml = domain_xml("e2e-three", boot=boot, disks=three_disks(images), serial_log=images / "console.log")
    with Guest.define(daemons, xml) as guest:
        guest.start()
        guest.wait_agent(120)
        guest.wait_counter_moves()
        yield guest
