"""The one place that starts rclone: binary, common options, its JSON log, progress, typed errors."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from infra.errors import CommandNotFound
from infra.process import Child, spawn
from infra.rclone.failures import failure, silence

logger = logging.getLogger("vmborg.rclone")

_KEPT = 200
_PATIENCE = 2  # times `stall`: one connection may be given up, and the file tried again
_BAD_LEVELS = {"error", "critical"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a copy is: rclone's configuration, and the remote with its folder."""

    config: Path
    remote: str  # s3:bucket/vmborg
    bandwidth: str | None = None
    transfers: int = 4
    stall: int = 600  # seconds without a byte after which a connection is given up; after twice that, all of it


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far rclone is; bytes, and bytes a second."""

    done: int
    total: int
    speed: float
    eta: float | None  # seconds
    files: int = 0  # copied, moved or deleted
    checks: int = 0  # files that were compared

    @property
    def moved(self) -> tuple[int, int, int]:
        """What grows as long as it gets on."""
        return self.done, self.files, self.checks


@dataclass(frozen=True, slots=True)
class Ended:
    """A rclone that ended with a code that was expected."""

    code: int
    stdout: str
    said: tuple[str, ...]


OnTransfer = Callable[[Transfer], None]


def binary() -> str:
    """rclone of the same environment as vmborg, so that every host has the same one."""
    return str(Path(sys.executable).with_name("rclone"))


def environment() -> dict[str, str | None]:
    """What rclone sees: nothing of the caller's RCLONE_ variables, which would override options and remotes."""
    return {name: None for name in os.environ if name.startswith("RCLONE_")}


def run_rclone(
    place: Place,
    arguments: Sequence[str],
    *,
    expected: Sequence[int] = (0,),
    on_transfer: OnTransfer | None = None,
    input_text: str | None = None,
) -> Ended:
    """Run one rclone command to its end. `arguments` begin with the command's name.

    Raises CloudError's subtypes and ConfigError (infra/rclone/failures.py) for an exit code that is not `expected`,
    CommandNotFound when rclone is not installed.
    """
    options = ["--config", str(place.config), "--use-json-log", "--stats", "1s", "--stats-log-level", "NOTICE"]
    options += ["--retries", "1", "--low-level-retries", "3", "--contimeout", "20s", "--timeout", f"{place.stall}s"]
    options += ["--transfers", str(place.transfers)]
    options += ["--bwlimit", place.bandwidth] if place.bandwidth else []
    argv = [binary(), *arguments, *options]
    with _start(argv, stdin=input_text is not None) as child:
        log = _Log(child, on_transfer, patience=_PATIENCE * place.stall)
        if input_text is not None:
            threading.Thread(target=_feed, args=(child, input_text), daemon=True).start()
        stdout = child.stdout.read()
        code = child.wait()
        said = log.finish()
    if log.stalled:
        raise silence(argv, _PATIENCE * place.stall, remote=place.remote)
    if code not in expected:
        raise failure(argv, code, said, remote=place.remote)
    return Ended(code, stdout, tuple(said))


@contextmanager
def _start(argv: Sequence[str], *, stdin: bool) -> Generator[Child]:
    try:
        with spawn(argv, env=environment(), stdin=stdin, own_session=True) as child:
            yield child
    except CommandNotFound as error:
        error.remedy = "rclone comes with vmborg: run `make setup` again, or put the program there."
        raise


def _feed(child: Child, text: str) -> None:
    try:
        child.stdin.write(text)
        child.stdin.close()
    except OSError:  # it ended; its exit code says why
        return


class _Log:
    """Reads rclone's JSON lines: errors are kept, statistics are told.

    A copy of many files in which nothing moves for `patience` seconds is ended: rclone itself gives up one file after
    the other, each after `--timeout`.
    """

    def __init__(self, child: Child, on_transfer: OnTransfer | None, *, patience: int) -> None:
        self.stalled = False
        self._patience = patience
        self._farthest = (0, 0, 0)
        self._moved = time.monotonic()
        self._child = child
        self._on_transfer = on_transfer
        self._said: list[str] = []
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def finish(self) -> list[str]:
        """What it said that was bad. Raises what the listener raised."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self._said

    def _read(self) -> None:
        for line in self._child.stderr:
            level, message, stats = parse_line(line)
            if level in _BAD_LEVELS:
                self._said.append(message)
                del self._said[:-_KEPT]
            if stats is not None and self._on_transfer is not None and self._problem is None:
                self._watch(stats)
                try:
                    self._on_transfer(stats)
                except Exception as error:  # noqa: BLE001 - raised again by finish(); the pipe must be read on
                    self._problem = error

    def _watch(self, stats: Transfer) -> None:
        now = time.monotonic()
        # What is sent again is taken off again: only what goes beyond all that was before counts.
        farthest = tuple(map(max, self._farthest, stats.moved))
        if farthest != self._farthest:
            self._farthest, self._moved = farthest, now
        elif now - self._moved > self._patience and not self.stalled:
            self.stalled = True
            self._child.popen.terminate()


def parse_line(line: str) -> tuple[str, str, Transfer | None]:
    """Level, message (with the object it is about) and statistics of one line. What is not JSON is an error line. Pure.

    Raises nothing.
    """
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return ("error", line.strip(), None) if line.strip() else ("", "", None)
    if not isinstance(found, dict):
        return "error", line.strip(), None
    data = cast("dict[str, Any]", found)
    message, thing = str(data.get("msg", "")).strip(), str(data.get("object", ""))
    if data.get("level") == "notice" and message.startswith("Failed to "):  # its last word before a bad exit code
        return "error", message, None
    return str(data.get("level", "")), f"{thing}: {message}" if thing else message, _transfer(data.get("stats"))


def _transfer(stats: Any) -> Transfer | None:
    if not isinstance(stats, dict):
        return None
    data = cast("dict[str, Any]", stats)
    eta = data.get("eta")
    return Transfer(
        done=int(data.get("bytes") or 0),
        total=int(data.get("totalBytes") or 0),
        speed=float(data.get("speed") or 0),
        eta=float(eta) if isinstance(eta, int | float) else None,
        files=sum(int(data.get(key) or 0) for key in ("transfers", "renames", "deletes")),
        checks=int(data.get("checks") or 0),
    )
