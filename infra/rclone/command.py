"""The one place that starts rclone: binary, common options, its JSON log, progress, typed errors."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from infra.process import Child, spawn
from infra.rclone.failures import failure

logger = logging.getLogger("vmborg.rclone")

_KEPT = 200
_BAD_LEVELS = {"error", "critical"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a copy is: rclone's configuration, and the remote with its folder."""

    config: Path
    remote: str  # s3:bucket/vmborg
    bandwidth: str | None = None
    transfers: int = 4
    stall: int = 600  # seconds without a byte after which a connection is given up


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far rclone is; bytes, and bytes a second."""

    done: int
    total: int
    speed: float
    eta: float | None  # seconds


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
    with spawn(argv, env=environment(), stdin=input_text is not None, own_session=True) as child:
        log = _Log(child, on_transfer)
        if input_text is not None:
            threading.Thread(target=_feed, args=(child, input_text), daemon=True).start()
        stdout = child.stdout.read()
        code = child.wait()
        said = log.finish()
    if code not in expected:
        raise failure(argv, code, said, remote=place.remote)
    return Ended(code, stdout, tuple(said))


def _feed(child: Child, text: str) -> None:
    try:
        child.stdin.write(text)
        child.stdin.close()
    except OSError:  # it ended; its exit code says why
        return


class _Log:
    """Reads rclone's JSON lines: errors are kept, statistics are told."""

    def __init__(self, child: Child, on_transfer: OnTransfer | None) -> None:
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
                try:
                    self._on_transfer(stats)
                except Exception as error:  # noqa: BLE001 - raised again by finish(); the pipe must be read on
                    self._problem = error


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
    )
