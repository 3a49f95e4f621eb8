"""A disk's life drawn by lot: writes, discards, crashes, resizes, restores and backups, every archive compared."""

import hashlib
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from infra.borg.client import Repository
from infra.process import run
from infra.qcow2.image import Qcow2Image
from tests.integration.segments.disk import BackedUpDisk
from tests.integration.segments.images import MIB, content_of, crash, drop_bitmaps, make_image, qemu_io, some_writes

SIZE = 24 * MIB + 512
SMALLER, LARGER = 14 * MIB, 29 * MIB + 1024


class Story:
    """Begin with an empty disk, then `play`."""

    def __init__(self, folder: Path, repository: Repository, *, seed: int) -> None:
        self.chance = random.Random(seed)
        self.disk = BackedUpDisk(make_image(folder / "vda.qcow2", size=SIZE), repository, folder, full_read_every=14)
        self.archives: dict[str, str] = {}  # name: digest of what the disk held
        self.modes: Counter[str] = Counter()

    def play(self, backups: int, *, tell: Callable[[str], None] = lambda _: None) -> None:
        """So many backups, something between each; the last one of each kept archive is compared again at the end."""
        for number in range(backups):
            what = self._something()
            checkpoint, remember = (self.chance.random() < 0.9 for _ in range(2))
            name, reading, _ = self.disk.back_up(shut_off=not checkpoint, checkpoint=checkpoint, remember=remember)
            self.modes["full" if reading.full else "incremental"] += 1
            tell(f"{number + 1}: {what}; {reading.reason}")
            expected = hashlib.sha256(content_of(self.disk.image)).hexdigest()
            self.require(name, expected)
            self.archives[name] = expected
        for name, expected in self.archives.items():
            self.require(name, expected)

    def require(self, name: str, expected: str) -> None:
        """Raise AssertionError unless an archive holds this."""
        found = hashlib.sha256(self.disk.archived(name)).hexdigest()
        assert found == expected, f"{name} is not what the disk was"

    def _something(self) -> str:
        kinds = (self._write, self._crash, self._resize, self._regrow, self._restore, self._forget, self._prune)
        kind = self.chance.choices(kinds, (12, 1, 1, 1, 1, 1, 2))[0]
        kind()
        return kind.__name__.strip("_")

    def _write(self) -> None:
        qemu_io(self.disk.image, some_writes(self.chance, self._size(), self.chance.randrange(6)))

    def _crash(self) -> None:
        crash(self.disk.image, some_writes(self.chance, self._size(), 2))

    def _resize(self) -> None:
        self._to(LARGER if self._size() == SIZE else SIZE)

    def _regrow(self) -> None:
        """Shrunk, and grown again to the size it had: no bit is set for what was lost."""
        size = self._size()
        self._to(SMALLER)
        self._to(size)

    def _restore(self) -> None:
        """The image is replaced by one made of an archive."""
        if not self.archives:
            return
        name = self.chance.choice(list(self.archives))
        raw = self.disk.work / "raw"
        raw.write_bytes(self.disk.archived(name))
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(self.disk.image)], timeout=60)
        raw.unlink()

    def _forget(self) -> None:
        """borg's cache is lost, or our memory."""
        if self.chance.random() < 0.5:
            shutil.rmtree(self.disk.repository.target.base_dir / ".cache", ignore_errors=True)
        else:
            self.disk.state = None

    def _prune(self) -> None:
        if len(self.archives) > 2:
            name = self.chance.choice(list(self.archives))
            self.disk.repository.delete([name])
            del self.archives[name]

    def _size(self) -> int:
        with Qcow2Image(str(self.disk.image)) as image:
            return image.size

    def _to(self, size: int) -> None:
        drop_bitmaps(self.disk.image, only_broken=True)
        run(["qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", str(self.disk.image), str(size)], timeout=60)
