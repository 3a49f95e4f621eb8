"""Kernel and initial RAM disk of the test guests, made of distribution packages."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.process import run
from tests.guests.cpio import Archive
from tests.guests.kernel import BASE, SCSI, Kernel, find_kernel, load_order, module_content
from tests.guests.packages import guest_agent, libraries, move_into_place, program, static_busybox

CACHE = Path(os.environ.get("VMBORG_TEST_CACHE", "/var/cache/vmborg-test-guests"))
"""Where the tests, the demo and the benchmark keep what is built once a machine."""
_ROOTFS = Path(__file__).with_name("rootfs")
_PROGRAMS = {"shutdown": "sbin/shutdown", "agent-pause": "bin/agent-pause"}
_DIRECTORIES = ("data", "dev", "etc", "proc", "run", "sys", "tmp", "var")


@dataclass(frozen=True, slots=True)
class Boot:
    """What a domain boots directly."""

    kernel: Path
    initrd: Path


def build_boot(cache_dir: Path = CACHE) -> Boot:
    """Build both files, or find them in `cache_dir` under the hash of their content.

    Safe to call from several processes at once. qemu's user must be able to enter `cache_dir`.
    Raises GuestError or CommandFailed if a package can be neither found nor downloaded.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    kernel = find_kernel(cache_dir)
    image = kernel.image.read_bytes()
    # Not compressed: unpacking under emulation takes longer than loading the few MiB.
    initrd = _initrd(kernel, cache_dir)
    digest = hashlib.sha256(image + initrd).hexdigest()[:16]
    target = cache_dir / f"boot-{digest}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".boot-") as work:
            built = Path(work, "built")
            built.mkdir()
            for name, content in (("vmlinuz", image), ("initrd", initrd)):
                (built / name).write_bytes(content)
                (built / name).chmod(0o644)
            move_into_place(built, target)
    return Boot(target / "vmlinuz", target / "initrd")


def _initrd(kernel: Kernel, cache_dir: Path) -> bytes:
    archive = Archive()
    for directory in _DIRECTORIES:
        archive.directory(directory)
    busybox = static_busybox(cache_dir)
    archive.file("bin/busybox", busybox.read_bytes())
    for applet in run([str(busybox), "--list"], timeout=30).stdout.split():
        if applet != "busybox":
            archive.link(f"bin/{applet}", "busybox")
    archive.link("init", "bin/busybox")
    for source, target in ((guest_agent(cache_dir), "sbin/qemu-ga"), (program("chattr"), "bin/chattr")):
        archive.file(target, source.read_bytes())
        for library in libraries(source):
            archive.file(str(library), library.read_bytes())
    for script in _ROOTFS.iterdir():
        archive.file(_PROGRAMS.get(script.name, f"etc/{script.name}"), script.read_bytes())
    _add_modules(archive, kernel)
    return archive.to_bytes()


def _add_modules(archive: Archive, kernel: Kernel) -> None:
    base = load_order(kernel, BASE)
    scsi = [module for module in load_order(kernel, SCSI) if module not in base]
    for name, modules in (("base", base), ("scsi", scsi)):
        lines: list[str] = []
        for module in modules:
            file = module.name.split(".")[0] + ".ko"
            archive.file(f"lib/modules/{file}", module_content(module), mode=0o644)
            lines.append(f"{file}\n")
        archive.file(f"etc/modules.{name}", "".join(lines).encode(), mode=0o644)
