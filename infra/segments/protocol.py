"""The kernel's FUSE protocol, as far as a read-only tree needs it. Pure.

Numbers and layouts are those of include/uapi/linux/fuse.h, whose structures only ever grow at their end. Spoken here
and not through a library: a reply that lies ready in memory goes out in one call and holes can be told, which the
bindings for Python do not offer; and the mount must be one of our own namespace (docs/adr/0018).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

IN_HEADER = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
OUT_HEADER = struct.Struct("<IiQ")  # length, -errno, unique
READ_IN = struct.Struct("<QQII")  # handle, offset, size, flags
LSEEK_IN = struct.Struct("<QQII")  # handle, offset, whence, padding
_INIT_IN = struct.Struct("<IIII")  # major, minor, readahead, flags
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_ATTR = "QQQQQQIIIIIIIIII"
_ATTR_OUT = struct.Struct("<QII" + _ATTR)
_ENTRY_OUT = struct.Struct("<QQQQII" + _ATTR)
_DIRENT = struct.Struct("<QQII")
_OPEN_OUT = struct.Struct("<QIi")
_STATFS_OUT = struct.Struct("<QQQQQIIII24x")
LSEEK_OUT = struct.Struct("<Q")

MAJOR, MINOR = 7, 31  # spoken here; a newer kernel falls back to it. 7.31: Linux 5.2
_OLDEST = 28  # 7.28: Linux 4.20, which brought requests of more than 128 KiB
_ASYNC_READ, _READDIRPLUS, _PARALLEL, _MAX_PAGES, _NO_OPENDIR = (1 << bit for bit in (0, 13, 18, 22, 24))
_WANTED = _ASYNC_READ | _READDIRPLUS | _PARALLEL | _MAX_PAGES | _NO_OPENDIR
REQUEST_BYTES = 64 * 1024
"""Bytes of the largest request; the kernel wants a buffer that could hold a write."""
_READ_PAGES = 256  # of 4 KiB: the kernel's own limit
_DIRECT_IO, _KEEP_CACHE, _NO_FLUSH = 1 << 0, 1 << 1, 1 << 5
_FOREVER = 365 * 86400
_SECOND = 10**9


class Op(IntEnum):
    """Requests that get an answer of their own; all others are answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44
    LSEEK = 46


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) tells of a file or folder. Times in nanoseconds."""

    inode: int
    mode: int
    size: int
    mtime: int
    ctime: int
    links: int = 1
    owner: tuple[int, int] = (0, 0)  # user and group


def init_reply(body: bytes) -> bytes | None:
    """The answer to INIT; None when the kernel's protocol is too old."""
    major, minor, readahead, flags = _INIT_IN.unpack_from(body)
    if (major, minor) < (MAJOR, _OLDEST):
        return None
    flags &= _WANTED
    return _INIT_OUT.pack(MAJOR, MINOR, readahead, flags, 16, 12, 4096, 1, _READ_PAGES, 0, 0, 0)


def attr_reply(attributes: Attributes) -> bytes:
    """The answer to GETATTR."""
    return _ATTR_OUT.pack(_FOREVER, 0, 0, *_stat(attributes))


def entry_reply(node: int, attributes: Attributes) -> bytes:
    """The answer to LOOKUP; `node` is the number by which the kernel asks from then on."""
    return _ENTRY_OUT.pack(node, 0, _FOREVER, _FOREVER, 0, 0, *_stat(attributes))


def _stat(each: Attributes) -> tuple[int, ...]:
    seconds = (each.mtime // _SECOND, each.mtime // _SECOND, each.ctime // _SECOND)
    rests = (each.mtime % _SECOND, each.mtime % _SECOND, each.ctime % _SECOND)
    blocks = -(-each.size // 512)
    return (each.inode, each.size, blocks, *seconds, *rests, each.mode, each.links, *each.owner, 0, 4096, 0)


def directory_entry(name: bytes, *, node: int, attributes: Attributes, following: int) -> bytes:
    """One entry of READDIRPLUS; `following` is where the next one begins."""
    kind = attributes.mode >> 12
    head = _DIRENT.pack(attributes.inode, following, len(name), kind) + name
    return entry_reply(node, attributes) + head.ljust(-(-len(head) // 8) * 8, b"\0")


def open_reply(*, cached: bool = False) -> bytes:
    """The answer to OPEN: what is read goes past the page cache, borg reads a file once. Not if `cached`."""
    return _OPEN_OUT.pack(0, (_KEEP_CACHE if cached else _DIRECT_IO) | _NO_FLUSH, 0)


def statfs_reply(size: int) -> bytes:
    """The answer to STATFS for so many bytes."""
    return _STATFS_OUT.pack(size // 4096, 0, 0, 0, 0, 4096, 255, 4096, 0)
