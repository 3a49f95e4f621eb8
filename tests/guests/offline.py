"""Read what a guest left in its images, without starting anything."""

import tempfile
from pathlib import Path

from infra.process import describe, run
from tests.guests.waiting import GuestError


class OfflineCounters(dict[str, int]):
    """Counters by target (0 where the guest had not written one yet), and the file systems' state."""

    def __init__(self) -> None:
        super().__init__()
        self.damage: dict[str, str] = {}
        """By target: what e2fsck had to say about a file system that is more than a journal replay from clean."""

    @property
    def clean(self) -> bool:
        """Whether every file system is whole after the replay of its journal."""
        return not self.damage


def read_counters_from_images(images: dict[str, Path]) -> OfflineCounters:
    """The file `counter` of each image, read from a copy. The images are only read, and may be in use.

    Raises CommandFailed if an image cannot be converted, GuestError if it holds no readable file system.
    """
    result = OfflineCounters()
    for target, image in images.items():
        # Beside the image: a copy may be as big as the image, and /tmp is often small.
        with tempfile.TemporaryDirectory(dir=_roomy(image), prefix=".offline-") as work:
            raw = Path(work, "raw")
            run(["qemu-img", "convert", "-U", "-O", "raw", str(image), str(raw)], timeout=600)
            if damage := _replay(raw):
                result.damage[target] = damage
            result[target] = _counter(raw)
    return result


def _roomy(image: Path) -> Path:
    return Path("/var/tmp") if image.is_relative_to("/dev") else image.parent


def _replay(raw: Path) -> str:
    """Replay the journal and free orphans, as a boot would; return what is wrong beyond that, or nothing.

    Neither `-p` nor `-y` alone will do: both repair real damage and end well. The free counts of the superblock, which
    the kernel does not keep current, are no error to `-n` (exit code 0).
    """
    replay = ["e2fsck", "-y", "-E", "journal_only", str(raw)]
    for command, allowed in ((replay, (0, 1)), (["e2fsck", "-fn", str(raw)], (0,))):
        checked = run(command, timeout=600, check=False)
        if checked.returncode not in allowed:
            return describe(command, checked.returncode, checked.stdout + checked.stderr)
    return ""


def _counter(raw: Path) -> int:
    shown = run(["debugfs", "-R", "cat counter", str(raw)], timeout=60)
    text = shown.stdout.strip()
    if text:
        return int(text)
    if "File not found by ext2_lookup" in shown.stderr or shown.stderr.count("\n") <= 1:
        return 0
    raise GuestError(f"{raw}: no readable file system: {shown.stderr}")
