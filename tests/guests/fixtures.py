"""Fixtures of every suite that runs guests; a suite's conftest.py imports them by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests.build import Boot, build_boot
from tests.guests.daemons import Daemons, ensure_daemons
from tests.guests.leftovers import image_dir, remove_leftovers


@pytest.fixture(scope="session")
def daemons() -> Iterator[Daemons]:
    """Running libvirt daemons, at `daemons.uri`, without anything that a killed run of the tests left there."""
    running = ensure_daemons()
    remove_leftovers(running.uri)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def boot() -> Boot:
    """Kernel and initial RAM disk of the guests, built once a machine."""
    return build_boot()


@pytest.fixture(scope="session")
def images() -> Iterator[Path]:
    """A directory for images that qemu may read; each guest of `guest_factory` has a folder of its own in it."""
    with image_dir() as path:
        yield path
