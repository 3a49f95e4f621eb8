"""A VM may have any name that libvirt takes, and is never mistaken for one whose name is like it."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.sources import Sources, assert_holds, disk

pytestmark = pytest.mark.e2e

NAMES = {
    "web": 1,
    "web-2": 2,
    "--all": 3,
    "%41 {now}@home.v2": 4,
    "Büro ✓ *?[x] 'q' \"r\" $(id) a:b::c": 5,
}
"""Each VM's name, and the byte that its disk is filled with."""


@dataclass
class BackedUp:
    """How one command backed all of them up."""

    outcomes: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def first(host: Sources) -> BackedUp:
    """All of them: shut off, but for web."""
    for name, fill in NAMES.items():
        guest = host.define(name, disk("vda", host.image(f"disk-{fill}.qcow2", fill=fill)))
        if name == "web":
            guest.start()
    return BackedUp(host.backup(*NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_list_knows_each_by_its_name(name: str, host: Sources, first: BackedUp) -> None:
    """`vmborg list NAME` tells of exactly this VM's archive, under the name that it has."""
    assert first.outcomes[name]["state"] == "complete"
    assert [(each["vm"], each["archive"]) for each in host.archives(name)] == [
        (name, first.outcomes[name]["result"]["archive"])
    ]


@pytest.mark.parametrize("name", NAMES)
def test_restore_brings_this_one_back(name: str, host: Sources, first: BackedUp) -> None:
    """`vmborg restore NAME` brings this VM's content back, and no neighbour's, under a name as odd as its own."""
    restored, copy = host.restore_as(name, f"{name} (copy)")
    assert restored["archive"] == first.outcomes[name]["result"]["archive"]
    assert copy.name == f"{name} (copy)"
    assert_holds(restored["disks"]["vda"], "qcow2", [NAMES[name]])


def test_a_backup_of_one_leaves_the_other_alone(host: Sources, first: BackedUp) -> None:
    """After another backup of `web` there is one archive more of `web`, and `web-2` has the one that it had."""
    host.backup("web")
    assert len(host.archives("web")) == 2
    assert [each["archive"] for each in host.archives("web-2")] == [first.outcomes["web-2"]["result"]["archive"]]
