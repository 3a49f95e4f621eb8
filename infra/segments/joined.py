"""The way back: folders of segments shown as the disks that they are, without copying any of them.

`python -m infra.segments.joined` serves one mount; `joined_disks` starts it. A line of JSON on its standard input says
what to serve, READY comes when the mount is there, and it ends when it is unmounted.
"""

import errno
import json
import os
import stat
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.errors import StorageError, VmborgError
from infra.manifest import segment_name
from infra.process import own_module, spawn
from infra.segments.answering import answer_requests
from infra.segments.mount import mount_here
from infra.segments.protocol import (
    READ_IN,
    Attributes,
    Op,
    attr_reply,
    directory_entry,
    entry_reply,
    open_reply,
    statfs_reply,
)

READY = "ready"
_ROOT = 1
_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class JoinedDisk:
    """A disk to show. Bytes."""

    name: str  # of the file that is shown
    folder: str  # where its segments are
    size: int
    segment: int


class _Segments:
    """The segments' files, the last ones kept open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, disk: JoinedDisk, offset: int, size: int) -> bytes:
        """So many bytes of the disk, less at its end. Raises OSError: a segment that is short is an error."""
        end = min(offset + size, disk.size)
        parts: list[bytes] = []
        while offset < end:
            number, start = divmod(offset, disk.segment)
            length = min(disk.segment - start, end - offset)
            content = os.pread(self._file(f"{disk.folder}/{segment_name(number)}"), length, start)
            if len(content) != length:
                raise OSError(errno.EIO, "a segment is short")
            parts.append(content)
            offset += length
        return b"".join(parts)

    def _file(self, path: str) -> int:
        descriptor = self._open.pop(path, -1)
        if descriptor < 0:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open[path] = descriptor
        return descriptor


class _Server:
    def __init__(self, device: int, disks: Sequence[JoinedDisk], owner: tuple[int, int]) -> None:
        self._device, self._disks, self._owner = device, disks, owner
        self._when = time.time_ns()
        self._segments = _Segments()

    def serve(self) -> None:
        """Answer the kernel until the mount is taken away. Raises OSError."""
        answer_requests(self._device, self._answer)

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes:  # noqa: PLR0911 - a request a line
        if opcode == Op.READ:
            _, offset, size, _ = READ_IN.unpack_from(body)
            return self._segments.read(self._disk(node), offset, size)
        if opcode == Op.LOOKUP:
            child = self._lookup(body.split(b"\0", 1)[0])
            return entry_reply(child, self._attributes(child))
        if opcode == Op.GETATTR:
            return attr_reply(self._attributes(node))
        if opcode == Op.OPEN:
            return open_reply(cached=True)
        if opcode == Op.READDIRPLUS:
            return self._list(*READ_IN.unpack_from(body)[1:3])
        if opcode == Op.STATFS:
            return statfs_reply(sum(disk.size for disk in self._disks))
        if opcode == Op.RELEASE:
            return b""
        raise OSError(errno.ENOSYS, "not needed here")

    def _disk(self, node: int) -> JoinedDisk:
        return self._disks[node - _ROOT - 1]

    def _lookup(self, name: bytes) -> int:
        for number, disk in enumerate(self._disks):
            if os.fsencode(disk.name) == name:
                return _ROOT + 1 + number
        raise OSError(errno.ENOENT, "no such disk")

    def _attributes(self, node: int) -> Attributes:
        if node == _ROOT:
            mode, size = stat.S_IFDIR | 0o500, 0
        else:
            mode, size = stat.S_IFREG | 0o400, self._disk(node).size
        return Attributes(node, mode, size, self._when, self._when, owner=self._owner)

    def _list(self, start: int, room: int) -> bytes:
        entries = b""
        for number in range(start, len(self._disks)):
            node, name = _ROOT + 1 + number, os.fsencode(self._disks[number].name)
            entry = directory_entry(name, node=node, attributes=self._attributes(node), following=number + 1)
            if len(entries) + len(entry) > room:
                break
            entries += entry
        return entries


def joined_disks(directory: Path, disks: Sequence[JoinedDisk], *, owner: tuple[int, int], log: Path) -> None:
    """Show these disks as raw files in `directory`, for `owner` (user, group) and root, until it is unmounted.

    The process outlives us. Raises StorageError when that is not possible.
    """
    wish = {"directory": str(directory), "owner": owner, "disks": [asdict(disk) for disk in disks]}
    argv, environment = own_module("infra.segments.joined")
    with (
        log.open("wb") as errors,
        spawn(argv, env=environment, cwd="/", stdin=True, stderr=errors, detached=True) as child,
    ):
        child.stdin.write(json.dumps(wish) + "\n")
        child.stdin.flush()
        said = child.stdout.readline().strip()
        if said == READY:
            child.release()
            return
    raise StorageError(
        f"The segments of the archive are not shown as disks at {directory}.",
        evidence=said or log.read_text("utf-8", "replace")[-2000:],
        remedy="It needs /dev/fuse (modprobe fuse) and the right to mount (root).",
    )


def main() -> int:
    """Serve what standard input asks for; the exit code."""
    wish: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    try:
        device = mount_here(Path(wish["directory"]), private=False, everybody=True)
    except VmborgError as error:
        print(json.dumps(error.facts), flush=True)  # noqa: T201 - the parent reads it
        return 1
    user, group = wish["owner"]
    server = _Server(device, [JoinedDisk(**disk) for disk in wish["disks"]], (user, group))
    print(READY, flush=True)  # noqa: T201
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
