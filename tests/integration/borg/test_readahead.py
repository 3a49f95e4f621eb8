"""What is read ahead of a process, seen in the page cache."""

import sys
from pathlib import Path

import pytest

from infra.borg.readahead import WINDOW, ReadAhead
from infra.process import Child, run, spawn
from tests.guests import wait_for
from tests.integration.borg.conftest import MIB, content

pytestmark = pytest.mark.integration

READER = r"""
import os, sys
files = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
for file in files:
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # the kernel itself shall not read ahead
file = files[0]
for line in sys.stdin:
    if line == "other\n":
        file = files[1]
        continue
    os.lseek(file, int(line), os.SEEK_SET)
    os.read(file, 1)
    print("read", flush=True)
"""


def cached(path: Path) -> int:
    """Bytes of a file in the page cache."""
    return int(run(["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)], timeout=20).stdout)


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    run(["dd", f"of={path}", "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"], timeout=60)
    wait_for(lambda: cached(path) < MIB, timeout=20, what="an empty page cache")


def read_at(reader: Child, offset: int) -> None:
    """Have the process read there."""
    reader.stdin.write(f"{offset}\n")
    reader.stdin.flush()
    assert reader.stdout.readline() == "read\n"


def read_on(reader: Child, image: Path, start: int, *, until: int = WINDOW // 2) -> None:
    """Have the process read on from there, a MiB further each time, until so many bytes are fetched."""
    offsets = iter(range(start, start + until, MIB))

    def fetched() -> bool:
        read_at(reader, next(offsets))
        return cached(image) >= until

    wait_for(fetched, timeout=20, interval=0.05, what="a window")


def test_what_comes_next_is_read_ahead(tmp_path: Path) -> None:
    """Reading on fetches at most a window more, and most of it soon; a jump begins anew, with little."""
    image = content(tmp_path / "image", size=400 * MIB)
    forget(image)
    with spawn([sys.executable, "-c", READER, str(image)], stdin=True) as reader:
        read_at(reader, 0)
        assert cached(image) < MIB
        with ReadAhead(reader.pid, [str(image)]):
            read_on(reader, image, 0)
            assert cached(image) <= WINDOW + WINDOW // 2 + 8 * MIB
            forget(image)
            read_at(reader, 200 * MIB)
            wait_for(lambda: cached(image) >= 2 * MIB, timeout=20, what="what follows the jump")
            assert cached(image) <= WINDOW // 4
            read_on(reader, image, 201 * MIB)
            assert cached(image) <= WINDOW + WINDOW // 2 + 8 * MIB


def test_files_below_a_folder_are_followed_by_turns(tmp_path: Path) -> None:
    """Of several open files, that one is read ahead in which the process goes on: segments stay open for a while."""
    one, two = (content(tmp_path / "data" / name, size=100 * MIB) for name in ("1", "2"))
    forget(one)
    forget(two)
    with (
        spawn([sys.executable, "-c", READER, str(one), str(two)], stdin=True) as reader,
        ReadAhead(reader.pid, [str(tmp_path / "data")]),
    ):
        read_on(reader, one, 0)
        assert cached(two) < MIB
        reader.stdin.write("other\n")
        read_on(reader, two, 0)


def test_holes_are_passed_over(tmp_path: Path) -> None:
    """Of a sparse file only its data is fetched; nothing happens behind its last byte, nor to other files."""
    image, other = content(tmp_path / "image", size=8 * MIB), content(tmp_path / "other", size=8 * MIB)
    with image.open("r+b") as file:
        file.truncate(10 * WINDOW)
    forget(image)
    forget(other)
    with (
        spawn([sys.executable, "-c", READER, str(image)], stdin=True) as reader,
        ReadAhead(reader.pid, [str(other), str(image)]),
    ):
        read_on(reader, image, 0, until=8 * MIB)
        read_at(reader, 10 * WINDOW)
        assert cached(image) <= 9 * MIB
        assert cached(other) < MIB


def test_a_process_that_ends_is_no_error(tmp_path: Path) -> None:
    """Whatever becomes of the process, the block ends."""
    image = content(tmp_path / "image", size=MIB)
    with spawn(["true"]) as gone:
        gone.wait(20)
        with ReadAhead(gone.pid, [str(image)]):
            gone.wait(20)
