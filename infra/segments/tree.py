"""The tree that borg sees: a folder a disk, a file a segment. Pure.

A segment's ctime is its generation: a number that changes when its content may have changed, and never comes again. So
for borg's files cache (path, inode, size, ctime) a segment that was not written to is a file that did not change.
"""

import hashlib
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from infra.manifest import segment_name
from infra.segments.protocol import Attributes

ROOT = 1
"""The number of the root's node, which the kernel knows."""

_DISK_SHIFT = 40
_FILE, _FOLDER = stat.S_IFREG | 0o400, stat.S_IFDIR | 0o500


def written_at(generation: int) -> int:
    """The time (ns) at which a generation began. Generations are half of it: see `state.new_generation`."""
    return 2 * generation


@dataclass(frozen=True, slots=True)
class DiskTree:
    """One disk's folder. Bytes."""

    target: str
    size: int
    segment: int
    generations: "array[int]"

    @property
    def inode(self) -> int:
        """The inode number of its folder: that of a segment must be the same in each backup, whatever disks come."""
        return int.from_bytes(hashlib.sha256(self.target.encode()).digest()[:2], "big") + 1 << 44

    def length(self, number: int) -> int:
        """Bytes of a segment; the last one may be shorter."""
        return min(self.segment, self.size - number * self.segment)

    def attributes(self, number: int) -> Attributes:
        """Of a segment."""
        generation = self.generations[number]
        return Attributes(
            inode=self.inode + number + 1,
            mode=_FILE,
            size=self.length(number),
            mtime=written_at(generation),
            ctime=generation,
        )


class Tree:
    """All disks. A node is a number: 1 the root, a disk's folder, or a segment of it."""

    def __init__(self, disks: tuple[DiskTree, ...], *, when: int) -> None:
        self.disks = disks
        self._when = when  # ns; of the folders
        self._by_name = {disk.target.encode(): number for number, disk in enumerate(disks)}

    def locate(self, node: int) -> tuple[int, int] | None:
        """Disk and segment of a node; -1 for a disk's folder. None for the root, and for what is not there."""
        disk, segment = (node >> _DISK_SHIFT) - 1, (node & ((1 << _DISK_SHIFT) - 1)) - 1
        if not 0 <= disk < len(self.disks) or segment >= len(self.disks[disk].generations):
            return None
        return disk, segment

    def attributes(self, node: int) -> Attributes | None:
        """Of a node; None when there is none."""
        if node == ROOT:
            return Attributes(ROOT, _FOLDER, 0, self._when, self._when, links=2)
        place = self.locate(node)
        if place is None:
            return None
        disk = self.disks[place[0]]
        if place[1] < 0:
            return Attributes(disk.inode, _FOLDER, 0, self._when, self._when, links=2)
        return disk.attributes(place[1])

    def lookup(self, parent: int, name: bytes) -> int | None:
        """The node of a name in a folder."""
        if parent == ROOT:
            number = self._by_name.get(name)
            return None if number is None else self._node(number, -1)
        place = self.locate(parent)
        try:
            segment = int(name, 16)
        except ValueError:
            return None
        if place is None or place[1] >= 0 or segment < 0 or name != segment_name(segment).encode():
            return None
        return self._node(place[0], segment) if segment < len(self.disks[place[0]].generations) else None

    def children(self, node: int, start: int) -> Iterator[tuple[bytes, int, Attributes]]:
        """Name, node and attributes of what is in a folder, from the so many-th on."""
        if node == ROOT:
            for number, disk in list(enumerate(self.disks))[start:]:
                folder = self._node(number, -1)
                yield disk.target.encode(), folder, Attributes(disk.inode, _FOLDER, 0, self._when, self._when, links=2)
            return
        place = self.locate(node)
        if place is not None and place[1] < 0:
            disk = self.disks[place[0]]
            for segment in range(start, len(disk.generations)):
                yield segment_name(segment).encode(), self._node(place[0], segment), disk.attributes(segment)

    @staticmethod
    def _node(disk: int, segment: int) -> int:
        return (disk + 1 << _DISK_SHIFT) + segment + 1
