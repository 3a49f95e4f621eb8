"""The file system that borg reads disks from: answers the kernel's requests until it is told to end."""

import errno
from collections.abc import Callable

from infra.segments.answering import answer_requests, required
from infra.segments.loader import Loader
from infra.segments.protocol import (
    LSEEK_IN,
    LSEEK_OUT,
    READ_IN,
    Op,
    attr_reply,
    directory_entry,
    entry_reply,
    open_reply,
    statfs_reply,
)
from infra.segments.tree import Tree

_SEEK_DATA, _SEEK_HOLE = 3, 4
_ZEROS = bytes(1024 * 1024)

IsHole = Callable[[int, int], bool]
"""Whether a segment (disk, number) is known to be zeros without reading it."""


class Server:
    """Serves one mount."""

    def __init__(self, device: int, tree: Tree, loader: Loader, *, is_hole: IsHole) -> None:
        self._device = device
        self._tree = tree
        self._loader = loader
        self._is_hole = is_hole
        self.holes_skipped = 0
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.OPEN: lambda _node, _body: open_reply(),
            Op.RELEASE: lambda _node, _body: b"",
            Op.STATFS: lambda _node, _body: statfs_reply(sum(disk.size for disk in tree.disks)),
            Op.READDIRPLUS: self._readdir,
            Op.LSEEK: self._lseek,
        }

    def serve(self, until: int) -> None:
        """Answer requests until the descriptor `until` can be read or is closed at its other end."""
        answer_requests(self._device, self._answer, until=until)

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes | memoryview:
        if opcode == Op.READ:
            return self._read(node, body)
        # ENOSYS to OPENDIR, FLUSH and others means: fine, and need not ask again.
        return required(self._answers.get(opcode), errno.ENOSYS)(node, body)

    def _lookup(self, node: int, body: bytes) -> bytes:
        found = required(self._tree.lookup(node, body.split(b"\0", 1)[0]), errno.ENOENT)
        return entry_reply(found, required(self._tree.attributes(found), errno.ENOENT))

    def _getattr(self, node: int, _body: bytes) -> bytes:
        return attr_reply(required(self._tree.attributes(node), errno.ENOENT))

    def _readdir(self, node: int, body: bytes) -> bytes:
        _, start, size, _ = READ_IN.unpack_from(body)
        parts: list[bytes] = []
        taken = 0
        for number, (name, child, attributes) in enumerate(self._tree.children(node, start), start + 1):
            entry = directory_entry(name, node=child, attributes=attributes, following=number)
            taken += len(entry)
            if taken > size:
                break
            parts.append(entry)
        return b"".join(parts)

    def _read(self, node: int, body: bytes) -> bytes | memoryview:
        disk, number = self._segment(node)
        _, offset, size, _ = READ_IN.unpack_from(body)
        length = self._tree.disks[disk].length(number)
        size = max(0, min(size, length - offset))
        content = self._loader.content(disk, number)
        if content is not None:
            return content[offset : offset + size]
        return memoryview(_ZEROS)[:size] if size <= len(_ZEROS) else bytes(size)

    def _lseek(self, node: int, body: bytes) -> bytes:
        """A segment is one hole, or all data: so borg's blocks always begin at multiples of their size."""
        disk, number = self._segment(node)
        _, offset, whence, _ = LSEEK_IN.unpack_from(body)
        length = self._tree.disks[disk].length(number)
        if offset >= length or whence not in {_SEEK_DATA, _SEEK_HOLE}:
            raise OSError(errno.ENXIO if offset >= length else errno.EINVAL, "lseek")
        if self._is_hole(disk, number):
            if whence == _SEEK_DATA:
                self.holes_skipped += 1
                raise OSError(errno.ENXIO, "no data")
            return LSEEK_OUT.pack(offset)
        return LSEEK_OUT.pack(offset if whence == _SEEK_DATA else length)

    def _segment(self, node: int) -> tuple[int, int]:
        disk, number = required(self._tree.locate(node), errno.ENOENT)
        if number < 0:
            raise OSError(errno.EISDIR, "a folder")
        return disk, number
