"""Frozen disks, mounted as segments for borg, while a block runs."""

import json
import select
from array import array
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import CommandFailed, CommandNotFound, CommandTimedOut, StorageError
from infra.manifest import segment_name
from infra.process import Child, own_module, run, spawn
from infra.segments import serve
from infra.segments.decide import DiskReading
from infra.segments.mount import DEVICE

_START_S, _LOOK_S, _END_S = 60.0, 30.0, 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """What was read through a view. Bytes."""

    read: int
    seen: Mapping[str, "array[int]"]  # by disk target: a checksum of each segment that was read


class SegmentView:
    """A mount that is there. Programs see it if they are started with `prefix`."""

    def __init__(self, child: Child, directory: Path, readings: Sequence[DiskReading]) -> None:
        self._child = child
        self._readings = readings
        self.directory = directory

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a program's name, to have it see the mount (nsenter(1))."""
        return ("nsenter", f"--mount=/proc/{self._child.pid}/ns/mnt", "--")

    def require_live(self) -> None:
        """Raise StorageError unless a program that is started with `prefix` sees the disks: borg takes any folder.

        A program of its own looks: where the mount does not answer, this process would wait for ever. To enter a mount
        namespace takes one right more than to make it, CAP_SYS_CHROOT (setns(2)).
        """
        paths = [str(self.directory / reading.target / segment_name(0)) for reading in self._readings]
        argv = [*self.prefix, "stat", "--format=%.9Z %s", *(paths or [str(self.directory)])]
        try:
            seen = run(argv, timeout=_LOOK_S).stdout.splitlines()
        except (CommandFailed, CommandNotFound, CommandTimedOut) as error:
            raise _dead(self.directory, f"{error.brief} {error.evidence}") from error
        for reading, line in zip(self._readings, seen, strict=False):
            ctime, size = line.replace(".", "").split()
            if (int(ctime), int(size)) != (reading.generations[0], min(reading.segment, reading.size)):
                raise _dead(self.directory, f"{reading.target}: its first segment is not the one to be read")

    def abandon(self) -> None:
        """End it at once, whatever it is doing."""
        self._child.kill()

    def finish(self) -> Served:
        """End it, and tell what was read. Raises StorageError when it died on the way, or does not end soon."""
        try:
            ended = self._child.finish(_END_S)
        except CommandTimedOut as error:
            self._child.kill()
            raise _dead(self.directory, error.brief) from error
        if ended.returncode != 0:
            raise _dead(self.directory, f"it ended with {ended.returncode}\n{ended.stderr[-2000:]}")
        report: dict[str, Any] = json.loads(ended.stdout)
        seen = {
            reading.target: serve.unpacked(packed)
            for reading, packed in zip(self._readings, report["seen"], strict=True)
        }
        return Served(report["read"], seen)


def supported() -> str:
    """Why nothing can be mounted on this host; "" when it can, as far as can be told without trying."""
    return "" if Path(DEVICE).exists() else f"the host has no {DEVICE} (modprobe fuse)"


@contextmanager
def segment_view(directory: Path, readings: Sequence[DiskReading]) -> Generator[SegmentView]:
    """Mount these frozen disks at `directory`, for the block. Raises StorageError when that is not possible."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    argv, environment = own_module(serve.__name__)
    with spawn(argv, env=environment, stdin=True, own_session=True) as child:
        _tell(child, directory, readings)
        view = SegmentView(child, directory, readings)
        view.require_live()
        yield view


def _tell(child: Child, directory: Path, readings: Sequence[DiskReading]) -> None:
    """Say what to serve, and wait until it is served."""
    disks = [
        {
            "target": reading.target,
            "path": reading.path,
            "segment": reading.segment,
            "generation": reading.generation,
            "generations": serve.packed(reading.generations),
        }
        for reading in readings
    ]
    try:
        child.stdin.write(json.dumps({"directory": str(directory), "disks": disks}) + "\n")
        child.stdin.flush()
    except BrokenPipeError as error:
        raise _dead(directory, child.stderr.read()[-2000:]) from error
    answered = bool(select.select([child.stdout], [], [], _START_S)[0])
    said = child.stdout.readline().strip() if answered else f"nothing came within {_START_S:.0f} s"
    if said != serve.READY:
        raise _dead(directory, _voice(said) or child.stderr.read()[-2000:])


def _voice(said: str) -> str:
    try:
        facts: dict[str, str] = json.loads(said)
        return f"{facts['brief']} {facts['evidence']}"
    except (ValueError, KeyError, TypeError):
        return said


def _dead(directory: Path, why: str) -> StorageError:
    return StorageError(
        f"The disks are not shown as segments at {directory}.",
        evidence=why,
        remedy="Set `read: whole` for this VM if it happens again; it reads the images themselves.",
    )
