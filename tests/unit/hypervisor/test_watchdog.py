"""What the watchdog hears from the run that it watches."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from infra.hypervisor.watchdog import FREEZING, READY, THAWED, Words

Pipe = tuple[Words, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """The watchdog's ear, and the descriptor that speaks into it."""
    reader, writer = os.pipe()
    yield Words(reader), writer
    os.close(reader)
    try:
        os.close(writer)
    except OSError:  # the test closed it
        assert reader >= 0


def test_a_word_is_heard_whole(pipe: Pipe) -> None:
    """A word counts once its line has ended, however it arrives, and stays said."""
    words, writer = pipe
    os.write(writer, FREEZING[:4].encode())
    assert not words.wait(FREEZING, 0.05)
    os.write(writer, f"{FREEZING[4:]}\n{THAWED}".encode())
    assert words.wait(FREEZING, 0)
    assert not words.wait(THAWED, 0.05)
    os.write(writer, b"\n")
    assert words.wait(THAWED, 0)
    assert words.wait(FREEZING, 0)
    assert not words.ended


def test_silence_lasts_as_long_as_asked(pipe: Pipe) -> None:
    """Without a word the wait ends at its time, not before."""
    began = time.monotonic()
    assert not pipe[0].wait(THAWED, 0.2)
    assert time.monotonic() - began >= 0.2


def test_other_words_do_not_count(pipe: Pipe) -> None:
    """A word is a line of its own."""
    words, writer = pipe
    os.write(writer, f"{READY}\nnot {THAWED}\n{THAWED} not\n".encode())
    assert not words.wait(THAWED, 0.05)


def test_a_dead_speaker_ends_the_wait_at_once(pipe: Pipe) -> None:
    """The pipe closes with the process that held it; what it had said still counts."""
    words, writer = pipe
    os.write(writer, f"{FREEZING}\n".encode())
    threading.Timer(0.1, os.close, [writer]).start()
    assert words.wait(FREEZING, 10)
    began = time.monotonic()
    assert not words.wait(THAWED, 30)
    assert time.monotonic() - began < 10
    assert words.ended
    assert words.wait(FREEZING, 0)
