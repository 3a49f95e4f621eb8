"""What is read ahead of a process, seen in the page cache."""

import sys
from pathlib import Path

import pytest

from infra.borg.readahead import WINDOW, ReadAhead
from infra.process import Child, run, spawn
from tests.guests import wait_for
from tests.integration.borg.conftest import MIB, content

pytestmark = pytest.mark.integration

READER = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # the kernel itself shall not read ahead
for line in sys.stdin:
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


def test_what_comes_next_is_read_ahead(tmp_path: Path) -> None:
    """At most a window from where the process reads is fetched, most of it at once, and follows it elsewhere."""
    image = content(tmp_path / "image", size=400 * MIB)
    forget(image)
    with spawn([sys.executable, "-c", READER, str(image)], stdin=True) as reader:
        read_at(reader, 0)
        assert cached(image) < MIB
        with ReadAhead(reader.pid, [str(image)]):
            wait_for(lambda: cached(image) >= WINDOW // 2, timeout=20, what="the first window")
            assert cached(image) <= WINDOW + 8 * MIB
            forget(image)
            read_at(reader, 300 * MIB)
            wait_for(lambda: cached(image) >= WINDOW // 2, timeout=20, what="the second window")
            assert cached(image) <= WINDOW + 8 * MIB


def test_holes_are_passed_over(tmp_path: Path) -> None:
    """Of a sparse file only its data is fetched; nothing happens behind its last byte, nor to other files."""
    image, other = content(tmp_path / "image", size=8 * MIB), content(tmp_path / "other", size=8 * MIB)
    with image.open("r+b") as file:
        file.truncate(10 * WINDOW)
    forget(image)
    forget(other)
    with (
        spawn([sys.executable, "-c", READER, str(image)], stdin=True) as reader,
        ReadAhead(reader.pid, [str(other), str(tmp_path), str(image)]),
    ):
        read_at(reader, 0)
        wait_for(lambda: cached(image) >= 8 * MIB, timeout=20, what="the data")
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
