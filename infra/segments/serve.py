"""The process that serves the segments: `python -m infra.segments.serve`, started by `view.SegmentView`.

One line of JSON comes on its standard input; when that is closed it ends. It says READY once the mount is there, and
prints a line of JSON at its end. It dies with the run that started it, and the mount with it.
"""

import base64
import json
import sys
import time
from array import array
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from infra.errors import VmborgError
from infra.qcow2.image import Qcow2Image
from infra.segments.loader import Loader, Source
from infra.segments.mount import mount_here
from infra.segments.server import Server
from infra.segments.state import UNKNOWN
from infra.segments.tree import DiskTree, Tree

READY = "ready"
_STDIN = 0


def packed(numbers: "array[int]") -> str:
    """Numbers as text, for JSON."""
    return base64.b85encode(numbers.tobytes()).decode("ascii")


def unpacked(text: str) -> "array[int]":
    """Numbers from such text."""
    return array("Q", base64.b85decode(text))


def main() -> int:
    """Serve until standard input ends; the exit code."""
    wish: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    try:
        device = mount_here(Path(wish["directory"]))
    except VmborgError as error:
        print(json.dumps(error.facts), flush=True)  # noqa: T201 - the parent reads it
        return 1
    with ExitStack() as images:
        sources = tuple(_source(disk, images) for disk in wish["disks"])
        disks = tuple(
            DiskTree(disk["target"], source.image.size, source.segment, unpacked(disk["generations"]))
            for disk, source in zip(wish["disks"], sources, strict=True)
        )
        loader = Loader(sources)
        server = Server(
            device,
            Tree(disks, when=time.time_ns()),
            loader,
            is_hole=lambda disk, number: sources[disk].image.is_hole(
                number * sources[disk].segment, sources[disk].length(number)
            ),
        )
        print(READY, flush=True)  # noqa: T201
        server.serve(_STDIN)
        loader.close()
    report = {"read": loader.read_bytes, "holes": server.holes_skipped, "seen": [packed(each.seen) for each in sources]}
    print(json.dumps(report), flush=True)  # noqa: T201
    return 0


def _source(disk: dict[str, Any], images: ExitStack) -> Source:
    image = images.enter_context(Qcow2Image(disk["path"]))
    generations = unpacked(disk["generations"])
    current: int = disk["generation"]
    wanted = frozenset(number for number, each in enumerate(generations) if each == current)
    seen = array("Q", [UNKNOWN]) * len(generations)
    return Source(image, disk["segment"], None if len(wanted) == len(generations) else wanted, seen)


if __name__ == "__main__":
    sys.exit(main())
