"""Which domains use an image: what decides that a file may be removed.

Every definition of every domain counts: live, inactive and in a saved state. An inactive definition names the active
image alone, so the headers of the images tell the rest of its chain. Too much is found rather than too little: the
headers are read without asking what format a definition states.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from infra.errors import DomainNotFound
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.domain import Domain
from infra.hypervisor.domain_xml import all_paths, all_volumes
from infra.hypervisor.qcow2_header import parse_header

logger = logging.getLogger("vmborg.recovery")

HEAD_BYTES = 64 * 1024
"""Enough of a qcow2 image for the name of its backing file, which qemu writes right behind the header."""

_MAX_CHAIN = 64


class ImageUsers:
    """Image paths, and the names of the domains that have them in a chain."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._addresses: list[tuple[str, str]] = []

    def add(self, path: str, name: str) -> None:
        """A domain uses this path, or whatever else qemu takes for the name of an image."""
        if path.startswith("/"):
            self._names.setdefault(os.path.realpath(path), set()).add(name)
        else:
            self._addresses.append((path, name))

    def of(self, path: str) -> tuple[str, ...]:
        """The domains that use it, under any of its names."""
        names = set(self._names.get(os.path.realpath(path), ()))
        names |= {name for address, name in self._addresses if Path(path).name in address}
        return tuple(sorted(names))


def image_users(hypervisor: Hypervisor) -> ImageUsers:
    """Look at every domain of the host. Raises HypervisorUnreachable; DomainXmlError, for then nothing is known."""
    users = ImageUsers()
    for domain in hypervisor.domains():
        try:
            name, paths = domain.name, _paths(domain)
        except DomainNotFound:  # it went away, and its uses with it
            continue
        for path in paths:
            users.add(path, name)
    return users


def _paths(domain: Domain) -> set[str]:
    live = domain.live_xml()
    resting = [domain.inactive_xml()] if domain.persistent() else []
    saved = domain.managed_save_xml() if resting and not live else ""
    resting += [saved] if saved else []
    paths: set[str] = set()
    for xml in resting:
        for path in _named(domain, xml):
            paths.update(_chain(path))
    return paths | _named(domain, live) if live else paths


def _named(domain: Domain, xml: str) -> set[str]:
    volumes = {domain.volume_path(pool, volume) for pool, volume in all_volumes(xml)}
    return all_paths(xml) | (volumes - {""})


def _chain(path: str) -> Iterator[str]:
    """The image and what the headers name below it."""
    for _ in range(_MAX_CHAIN):
        yield path
        below = backing_of(path)
        if not below:
            return
        path = below


def backing_of(path: str) -> str:
    """The backing file that an image's own header names, as full path where it is one; "" without one."""
    try:
        with Path(path).open("rb") as file:
            backing = parse_header(file.read(HEAD_BYTES)).backing
    except (OSError, ValueError) as error:
        logger.debug("%s has no backing file that can be read: %s", path, error)
        return ""
    backing = backing.removeprefix("file:")
    if not backing or ":" in backing.split("/", 1)[0]:  # json:{...}, nbd://...
        return backing
    return str(Path(path).parent / backing)
