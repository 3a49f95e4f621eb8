"""Which domains use an image, anywhere in a chain: what has to be known before a file is removed.

Asked are the live and the inactive definition and the managed save image of every domain, and, below the images they
name, the headers of the images themselves: the definition of a shut-off domain names only its active image. Headers are
read whatever format a definition states: a file too many costs nothing here, a file too few costs a disk.
"""

import json
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

from infra.errors import DomainNotFound, ImageError
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.domain_xml import all_paths, all_volumes
from infra.qcow2.header import read_header

logger = logging.getLogger("vmborg.hypervisor")

_Identity = tuple[int, int] | str


def users_of(hypervisor: Hypervisor, paths: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Each path with the names of the domains that have it in a chain, sorted; the same file by other names counts.

    Raises HypervisorError: what could not be read is not taken for unused.
    """
    found: dict[str, list[str]] = {path: [] for path in paths}
    for domain in hypervisor.domains():
        try:
            used = {_identity(path) for path in chain_paths(domain)}
            name = domain.name
        except DomainNotFound:
            continue  # undefined while we went through the list
        for path in paths:
            if _identity(path) in used:
                found[path].append(name)
    return {path: tuple(sorted(names)) for path, names in found.items()}


def chain_paths(domain: Domain) -> set[str]:
    """Every image path that a domain uses now or at its next start. Raises HypervisorError."""
    named: set[str] = set()
    for xml in (domain.live_xml(), domain.inactive_xml(), domain.managed_save_xml()):
        if xml:
            named |= all_paths(xml)
            named |= {path for pool, volume in all_volumes(xml) if (path := domain.volume_path(pool, volume))}
    return named | {path for each in named for path in below(each)}


def below(path: str) -> Iterator[str]:
    """The files that an image's header names as its backing files, and theirs. What is no qcow2 image ends it."""
    seen = {_identity(path)}
    waiting = [path]
    while waiting:
        current = waiting.pop()
        for found in _backing_paths(current):
            if _identity(found) not in seen:
                seen.add(_identity(found))
                waiting.append(found)
                yield found


def _backing_paths(path: str) -> list[str]:
    if not Path(path).is_file() and not Path(path).is_block_device():
        return []
    try:
        name = read_header(Path(path)).backing
    except ImageError as error:
        logger.debug("no qcow2 header: %s", error.evidence)
        return []
    if name.startswith("json:"):
        names = list(_file_names(_parsed(name.removeprefix("json:"))))
    else:
        names = [name.removeprefix("file:")] if name else []
    return [str(Path(path).parent / each) for each in names]


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _file_names(value: object) -> Iterator[str]:
    """Every value of a key `filename`, however deep, and of `file.filename`, as qemu also writes it."""
    if not isinstance(value, dict):
        return
    for key, inner in cast("dict[str, Any]", value).items():
        if key.rpartition(".")[2] == "filename" and isinstance(inner, str):
            yield inner
        yield from _file_names(inner)


def _identity(path: str) -> _Identity:
    """The same for two names of one file; of a missing file, its name."""
    try:
        found = Path(path).stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino
