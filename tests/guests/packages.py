"""Files of Debian and Ubuntu packages, unpacked rather than installed where the host should not have them."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from infra.process import run
from tests.guests.waiting import GuestError


def unpack(package: str, cache_dir: Path) -> Path:
    """The tree of a package, downloaded once into `cache_dir`. Raises CommandFailed if apt cannot fetch it."""
    tree = cache_dir / "packages" / package
    if tree.is_dir():
        return tree
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=f".{package}-") as work:
        # As root: apt's own unprivileged user may not enter this directory.
        run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package], cwd=work, timeout=300)
        (archive,) = Path(work).glob("*.deb")
        run(["dpkg-deb", "-x", str(archive), f"{work}/tree"], timeout=120)
        move_into_place(Path(work, "tree"), tree)
    return tree


def move_into_place(built: Path, target: Path) -> None:
    """Rename a finished directory; if another process was first, its result is as good."""
    built.chmod(0o755)
    try:
        built.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def dependencies(package: str, pattern: str) -> list[str]:
    """Names in the package's Depends that match `pattern`; empty if apt does not know the package."""
    shown = run(["apt-cache", "show", "--no-all-versions", package], timeout=60, check=False)
    depends = " ".join(re.findall(r"^Depends: (.*)$", shown.stdout, re.MULTILINE))
    return sorted(set(re.findall(pattern, depends)))


def static_busybox(cache_dir: Path) -> Path:
    """Busybox that needs no library: busybox-static's, installed or unpacked."""
    candidates = [Path("/bin/busybox"), Path("/usr/bin/busybox")]
    for path in candidates:
        if path.is_file() and not libraries(path):
            return path
    tree = unpack("busybox-static", cache_dir)
    return next(path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.is_file())


def guest_agent(cache_dir: Path) -> Path:
    """qemu-ga, unpacked: a hypervisor has no use for the installed service."""
    return unpack("qemu-guest-agent", cache_dir) / "usr/sbin/qemu-ga"


def program(name: str) -> Path:
    """A program of this host. Raises GuestError if it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if not found:
        raise GuestError(f"{name} is not installed; `make setup` installs it")
    return Path(found)


def libraries(executable: Path) -> list[Path]:
    """The shared libraries and the loader that a program needs; empty for a static one."""
    shown = run(["ldd", str(executable)], timeout=30, check=False).stdout
    if missing := re.findall(r"^\s*(\S+) => not found", shown, re.MULTILINE):
        raise GuestError(f"{executable} needs {', '.join(missing)}; install the packages that hold them")
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", shown)]
