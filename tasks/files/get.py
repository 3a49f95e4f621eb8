"""Files brought from the appliance to a folder of this host."""

import os
import posixpath
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from infra.errors import StorageError, TargetExists, UsageError, VmborgError
from infra.errors_views import GuestPathError
from infra.guestfs.session import Appliance
from infra.guestfs.untar import Unpacked, Unpacker
from tasks.restore.workspace import is_abandoned, locked_directory

_STAGING = ".vmborg-get-"


def plain(path: str) -> str:
    """A path of the guest in its plainest form. Raises UsageError unless it begins with a slash."""
    if not path.startswith("/"):
        raise UsageError(f"{path!r} is no path of the guest: it begins with a slash.", remedy="Write /etc/fstab.")
    return "/" + posixpath.normpath(path).strip("/")


def local_names(paths: Sequence[str], to: Path) -> dict[str, str]:
    """Where each path goes below `to`. Raises UsageError (two of one name), TargetExists."""
    names: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        name = posixpath.basename(path) or "root"
        if name in names.values():
            raise UsageError(f"Two of the paths are called {name!r}.", remedy="Get them one by one, to two folders.")
        if os.path.lexists(to / name):
            raise TargetExists(
                f"{to / name} exists already; nothing was written.", remedy="Name another folder for --to."
            )
        names[path] = name
    return names


def bring(appliance: Appliance, paths: Sequence[str], to: Path, work: Path) -> Unpacked:
    """Bring files and folders below `to`: all of them or none. `work` is a private folder.

    Raises GuestPathError, UnsafeArchive, StorageError, UsageError, TargetExists, ApplianceFailed.
    """
    names = local_names(paths, to)
    try:
        with _staging(to) as staging:
            unpacker = Unpacker(staging, owners=os.geteuid() == 0)
            try:
                for path, name in names.items():
                    _bring_one(appliance, path, name, unpacker=unpacker, pipe=work / "stream")
            finally:
                unpacker.close()
            for name in names.values():
                if os.path.lexists(staging / name):
                    (staging / name).rename(to / name)
    except OSError as error:
        raise StorageError(f"{to} cannot be written.", evidence=str(error), remedy="Name another folder.") from error
    return unpacker.done


@contextmanager
def _staging(to: Path) -> Generator[Path]:
    """A folder in `to`, gone after the block, with what killed calls left there."""
    to.mkdir(parents=True, exist_ok=True)
    for each in to.glob(f"{_STAGING}*"):
        if is_abandoned(each):
            shutil.rmtree(each)
    with locked_directory(to, prefix=_STAGING) as path:
        yield path


def _bring_one(appliance: Appliance, path: str, name: str, *, unpacker: Unpacker, pipe: Path) -> None:
    found = _stat(appliance, path)
    member = tarfile.TarInfo(name)
    mode = found["st_mode"]
    member.mode, member.uid, member.gid = stat.S_IMODE(mode), found["st_uid"], found["st_gid"]
    member.mtime = found["st_mtime_sec"]
    if stat.S_ISDIR(mode):
        member.type = tarfile.DIRTYPE
        unpacker.add(member, None)
        words = ("tar-out", path, str(pipe), "numericowner:true")
        _piped(appliance, words, pipe, lambda stream: unpacker.stream(stream, below=name))
    elif stat.S_ISLNK(mode):
        member.type = tarfile.SYMTYPE
        member.linkname = appliance.do("readlink", path).removesuffix("\n")
        unpacker.add(member, None)
    elif stat.S_ISREG(mode):
        member.size = found["st_size"]
        words = ("download", path, str(pipe))
        _piped(appliance, words, pipe, lambda stream: unpacker.add(member, stream))
    else:
        raise GuestPathError(
            f"{path} is neither a file, a folder nor a link.", evidence=f"its mode is {mode:o}", remedy="Name another."
        )


def _stat(appliance: Appliance, path: str) -> dict[str, int]:
    try:
        text = appliance.do("lstatns", path)
    except GuestPathError as error:
        error.brief = f"{path} cannot be read in the guest."
        error.remedy = "Look what is there: vmborg files VM ls /"
        raise
    return {key: int(value) for key, value in (line.split(": ") for line in text.splitlines() if ": " in line)}


def _piped(appliance: Appliance, words: tuple[str, ...], pipe: Path, use: Callable[[IO[bytes]], object]) -> None:
    """Have the appliance write into a pipe that `use` reads. Raises what either says, the appliance first."""
    os.mkfifo(pipe, 0o600)
    problems: list[Exception] = []

    def read() -> None:
        with pipe.open("rb") as stream:
            try:
                use(stream)
            except (VmborgError, OSError) as error:
                problems.append(error)
            while stream.read(1 << 20):  # whoever writes must come to an end
                pass

    reader = threading.Thread(target=read, name="guest files", daemon=True)
    reader.start()
    try:
        appliance.do(*words)
    finally:
        if reader.is_alive():  # it may still wait for somebody who writes
            descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
            os.close(descriptor)
        reader.join()
        pipe.unlink()
    if problems:
        raise problems[0]
