"""A kernel with virtio for the guests, and the modules it needs, in loading order."""

import lzma
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.process import run
from tests.guests.packages import dependencies, move_into_place, unpack
from tests.guests.waiting import GuestError

BASE = ("virtio_pci", "virtio_blk", "virtio_console", "crc32c_generic", "ext4", "nls_utf8", "button", "evdev")
SCSI = ("virtio_scsi", "sd_mod", "sr_mod")
_META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-generic")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image and its /lib/modules/RELEASE."""

    image: Path
    modules: Path


def find_kernel(cache_dir: Path, *, root: Path = Path("/")) -> Kernel:
    """The installed kernel (the smallest flavour, then the newest), or one downloaded into `cache_dir`."""
    installed = list(_installed(root))
    return max(installed, key=_preference) if installed else _downloaded(cache_dir)


def _installed(root: Path) -> list[Kernel]:
    found: list[Kernel] = []
    for image in (root / "boot").glob("vmlinuz-*"):
        release = image.name.removeprefix("vmlinuz-")
        modules = root / "lib/modules" / release
        if (modules / "modules.dep").is_file():
            found.append(Kernel(image, modules))
    return found


def _preference(kernel: Kernel) -> tuple[bool, list[int]]:
    release = kernel.modules.name
    return "cloud" in release or "virtual" in release, [int(number) for number in re.findall(r"\d+", release)]


def _downloaded(cache_dir: Path) -> Kernel:
    tree = cache_dir / "packages" / "kernel"
    if not tree.is_dir():
        packages = next((found for meta in _META_PACKAGES if (found := _packages_of(meta))), None)
        if not packages:
            raise GuestError(f"apt knows none of {', '.join(_META_PACKAGES)}: run apt-get update")
        tree.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".kernel-") as work:
            _merge(packages, Path(work, "tree"), cache_dir=cache_dir)
            move_into_place(Path(work, "tree"), tree)
    return max(_installed(tree), key=_preference)


def _packages_of(meta: str) -> list[str]:
    # Ubuntu's virtual -> image-virtual holds no modules; the image's own dependency names linux-modules-RELEASE.
    images = dependencies(meta, r"linux-image-\d[\w.+-]*")
    modules = [name for image in images for name in dependencies(image, r"linux-modules-\d[\w.+-]*")]
    return sorted({*images, *modules})


def _merge(packages: list[str], tree: Path, *, cache_dir: Path) -> None:
    for package in packages:
        unpacked = unpack(package, cache_dir)
        shutil.copytree(unpacked, tree, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(unpacked)
    if (tree / "usr/lib/modules").is_dir() and not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")
    for modules in (tree / "lib/modules").iterdir():
        run(["depmod", "-b", str(tree), modules.name], timeout=120)


def load_order(kernel: Kernel, wanted: tuple[str, ...]) -> list[Path]:
    """Module files so that each comes after what it needs; what is built in or not there is left out.

    modules.dep lists, after each module, what it depends on; the last one named is loaded first (modules.dep(5)).
    """
    lines = (kernel.modules / "modules.dep").read_text().splitlines()
    table = {_module_name(file): needs.split() for file, needs in (line.split(":") for line in lines)}
    files = {_module_name(line.split(":")[0]): line.split(":")[0] for line in lines}
    order: dict[str, None] = {}
    for name in wanted:
        if name in files:
            order |= dict.fromkeys([*reversed(table[name]), files[name]])
    return [kernel.modules / file for file in order]


def _module_name(file: str) -> str:
    return Path(file).name.split(".")[0].replace("-", "_")


def module_content(path: Path) -> bytes:
    """The module, unpacked: busybox's insmod knows no compression."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with tempfile.TemporaryDirectory() as work:
            run(["zstd", "-dq", str(path), "-o", f"{work}/module"], timeout=30)
            return Path(work, "module").read_bytes()
    return path.read_bytes()
