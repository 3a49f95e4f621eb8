"""A FUSE mount that goes with the process that made it.

It is made in a mount namespace of its own: nobody else sees it, and when the last process in there has ended, however
it ended, the kernel takes it away. So a killed run leaves no mount behind (mount_namespaces(7)).
"""

import ctypes
import errno
import os
from pathlib import Path

from infra.errors import StorageError

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NAMESPACE = 0x20000  # CLONE_NEWNS
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_PROGRAMS, _NO_ATIME = 1, 2, 4, 8, 1024  # sys/mount.h
_RECURSIVE, _SLAVE = 16384, 1 << 19
DEVICE = "/dev/fuse"


def mount_here(directory: Path, *, private: bool = True, everybody: bool = False) -> int:
    """Move this process to a mount namespace of its own, mount there; the descriptor that requests come from.

    What is mounted and unmounted on the host later still shows here, so that nothing is held that an administrator
    wants to unmount. Not `private`: the mount is the whole host's, and somebody has to take it away. `everybody`: other
    users may read what the modes of the files let them (allow_other, mount.fuse3(8)). Raises StorageError.
    """
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        if private:
            _require(_LIBC.unshare(_NEW_NAMESPACE))
            _require(_LIBC.mount(b"none", b"/", None, ctypes.c_ulong(_RECURSIVE | _SLAVE), None))
        flags = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_PROGRAMS | _NO_ATIME
        options = f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},default_permissions"
        options += ",allow_other" if everybody else ""
        target = os.fsencode(directory)
        _require(_LIBC.mount(b"vmborg", target, b"fuse", ctypes.c_ulong(flags), options.encode()))
    except OSError as error:
        raise StorageError(
            "No FUSE file system can be mounted here.",
            evidence=f"{DEVICE}, {directory}: {error.strerror}",
            remedy="It needs the kernel's module fuse and the right to mount (CAP_SYS_ADMIN).",
        ) from error
    return device


def _require(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, "") + ": " + os.strerror(number))
