"""A cpio archive in the kernel's newc format (Documentation/driver-api/early-userspace/buffer-format.rst).

Written here rather than by cpio(1) so that the same files always give the same bytes.
"""

import stat

_TRAILER = "TRAILER!!!"


class Archive:
    """Directories, files and symbolic links, all of root's, without a time."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def directory(self, path: str) -> None:
        """Add a directory and its parents."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            self._entries.setdefault("/".join(parts[:depth]), (stat.S_IFDIR | 0o755, b""))

    def file(self, path: str, content: bytes, *, mode: int = 0o755) -> None:
        """Add a file; a later one of the same path replaces it."""
        self._add(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def _add(self, path: str, mode: int, content: bytes) -> None:
        parent, _, _ = path.strip("/").rpartition("/")
        if parent:
            self.directory(parent)
        self._entries[path.strip("/")] = (mode, content)

    def to_bytes(self) -> bytes:
        """The archive, parents before children."""
        records = [
            _record(number, name, mode=mode, content=content)
            for number, (name, (mode, content)) in enumerate(self._entries.items(), start=1)
        ]
        return b"".join([*records, _record(0, _TRAILER, mode=0, content=b"")])


def _record(inode: int, name: str, *, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
