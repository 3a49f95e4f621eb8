"""The one place that starts borg: binary, environment, common options, both pipes, typed errors."""

import errno
import logging
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from infra.borg.failures import failure
from infra.borg.locks import holders
from infra.borg.messages import LogMessage, Message, parse_line
from infra.borg.readahead import ReadAhead
from infra.errors import (
    BorgError,
    CommandTimedOut,
    NoSpace,
    RepositoryFull,
    RepositoryInvalid,
    RepositoryLocked,
    RepositoryNotFound,
    RepositoryUnreachable,
    StorageError,
    VmborgError,
)
from infra.process import Child, spawn

logger = logging.getLogger("vmborg.borg")

_KEPT_MESSAGES = 200
_FULL = 16 * 1024**2  # bytes free; borg's index files need some at a time
_POLL_S = 0.1
_TERMINATE_GRACE_S = 15.0

Listener = Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how borg works: one repository as it is configured."""

    location: str
    passphrase: str | None = field(repr=False)
    base_dir: Path
    lock_wait: int  # seconds
    remote_path: str | None = None
    rsh: str | None = None
    unencrypted: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A borg that ended well."""

    stdout: str
    seconds: float
    read_bytes: int  # what the process read in all, as last seen in /proc/PID/io (rchar)
    stopped: bool = False


def binary() -> str:
    """borg of the same environment as vmborg, so that every host has the same one."""
    return str(Path(sys.executable).with_name("borg"))


def environment(target: Target) -> dict[str, str | None]:
    """What borg sees. Nothing of the caller's BORG_ variables; times in UTC; questions are answered with no.

    Each start of borg would load its library for mounts, a third of the time that a start takes; `mount` alone does.
    """
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("BORG_")}
    return env | {
        "BORG_BASE_DIR": str(target.base_dir),
        "BORG_EXIT_CODES": "modern",
        "BORG_FUSE_IMPL": "none",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "no",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes" if target.unencrypted else "no",
        "BORG_RSH": target.rsh or "ssh -oBatchMode=yes",
        "TZ": "UTC",
    }


def run_borg(  # noqa: PLR0913 - each is a thing that callers vary
    target: Target,
    arguments: Sequence[str],
    *,
    listener: Listener | None = None,
    stop: threading.Event | None = None,
    lock_wait: int | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    output: IO[bytes] | None = None,
    read_ahead: Sequence[str] = (),
    timeout: float | None = None,
    prefix: Sequence[str] = (),
) -> Finished:
    """Run one borg command to its end, and return what it wrote on stdout.

    `arguments` begin with the command's name. `listener` gets every message. When `stop` is set, borg is ended with
    SIGTERM: it releases its locks and keeps no archive (borg docs: internals/frontends, Signal.SIGTERM). `read_ahead`
    are files that it reads from beginning to end. `timeout` bounds in seconds what it takes beside waiting for a lock:
    a repository may hang. `prefix` is a program that starts borg in its own place, such as nsenter.

    Raises BorgError's subtypes for every exit code but 0, RepositoryUnreachable at the end of `timeout`, StorageError
    when borg's own folder cannot be made.
    """
    _make_base_dir(target.base_dir)
    wait = target.lock_wait if lock_wait is None else lock_wait
    common = ["--log-json", "--lock-wait", str(wait)]
    if target.remote_path:
        common += ["--remote-path", target.remote_path]
    argv = [binary(), *common, *arguments]
    # Without any passphrase borg would ask on the terminal, and wait there for an answer.
    secret = {"BORG_PASSPHRASE_FD": target.passphrase or ""}
    begun = time.monotonic()
    with spawn(
        [*prefix, *argv],
        env={**environment(target), **(env or {})},
        cwd=str(cwd) if cwd else None,
        secrets=secret,
        stdout=output,
        own_session=True,  # Ctrl-C is for us: on SIGINT borg saves a NAME.checkpoint before it ends
    ) as child:
        run = _Run(child, listener, seconds=None if timeout is None else timeout + wait)
        with ReadAhead(child.pid, read_ahead):
            stopped = run.wait(stop)
        done = Finished(run.stdout, time.monotonic() - begun, run.read_bytes, stopped)
    where = {"location": target.location, "base_dir": str(target.base_dir)}
    error = None if stopped else failure(argv, child.popen.returncode, run.messages, **where)
    if error is None:
        return done
    raise _known_better(target, error)


def _make_base_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"The folder of borg's caches cannot be made in state_dir ({path}).",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Make room on the file system of state_dir, and run vmborg as root.",
        ) from error


def _known_better(target: Target, error: BorgError) -> VmborgError:
    """The error with what only this host can tell: who holds a lock, which file system is full."""
    if isinstance(error, RepositoryLocked):
        error.evidence = "\n".join([error.evidence, *holders(error.evidence)])
    if isinstance(error, RepositoryInvalid) and _is_empty_folder(target.location):
        return RepositoryNotFound(
            f"There is no borg repository at {target.location}: the folder is empty.",
            evidence=error.evidence,
            remedy="See that its disk is mounted; create a new one with `vmborg init`.",
            returncode=error.returncode,
        )
    if isinstance(error, RepositoryFull) and _is_ours_that_is_full(target, error):
        return NoSpace(
            f"The file system of vmborg's own files is full ({target.base_dir}).",
            evidence=error.evidence,
            remedy="Free some space there: borg keeps its caches below state_dir. The repository is not touched.",
        )
    return error


@contextmanager
def extract_target(place: str) -> Generator[None]:
    """An extract writes to its target alone: what is full then is not the repository. Raises NoSpace."""
    try:
        yield
    except BorgError as error:
        if os.strerror(errno.ENOSPC) not in error.evidence:
            raise
        raise NoSpace(
            f"There is no room left in {place}; what was extracted is not whole.",
            evidence=error.evidence,
            remedy="Make room there, or restore to another place.",
        ) from error


def _is_empty_folder(location: str) -> bool:
    """A mount point without its disk, or a fresh disk."""
    folder = Path(location)
    return location.startswith("/") and folder.is_dir() and {each.name for each in folder.iterdir()} <= {"lost+found"}


def _is_ours_that_is_full(target: Target, error: RepositoryFull) -> bool:
    """borg says no more than ENOSPC: its caches may be what finds no room."""
    if os.strerror(errno.ENOSPC) not in error.evidence:
        return False
    if str(target.base_dir) in error.evidence:
        return True
    ours = shutil.disk_usage(target.base_dir).free
    theirs = shutil.disk_usage(target.location).free if Path(target.location).is_dir() else ours + 1
    return ours < min(theirs, _FULL)


def _hangs(argv: Sequence[str]) -> RepositoryUnreachable:
    return RepositoryUnreachable(
        "borg did not end in time; it was ended.",
        evidence=shlex.join(argv),
        remedy="Look whether the repository's storage, or the server that it is on, answers.",
    )


class _Run:
    """Reads both pipes of a running borg, so that neither blocks it."""

    def __init__(self, child: Child, listener: Listener | None, *, seconds: float | None) -> None:
        self._child = child
        self._end = None if seconds is None else time.monotonic() + seconds
        self._listener = listener
        self.messages: list[LogMessage] = []
        self.stdout = ""
        self.read_bytes = 0
        self._problem: BaseException | None = None
        readers = [self._read_stdout, self._read_stderr] if child.popen.stdout else [self._read_stderr]
        self._threads = [threading.Thread(target=reader, daemon=True) for reader in readers]
        for thread in self._threads:
            thread.start()

    def wait(self, stop: threading.Event | None) -> bool:
        """Wait for its end; True if we ended it because `stop` was set.

        What a listener raised ends it too, and is raised here.
        """
        stopped = False
        while any(thread.is_alive() for thread in self._threads) or self._child.poll() is None:
            if stop is not None and stop.is_set() and not stopped:
                stopped = True
                self._child.terminate(_TERMINATE_GRACE_S)
            if self._end is not None and time.monotonic() > self._end and self._problem is None:
                self._problem = _hangs(self._child.argv)
            if self._problem is not None:
                self._child.terminate(_TERMINATE_GRACE_S)
            self._look()
            alive = [thread for thread in self._threads if thread.is_alive()]
            (alive or self._threads)[-1].join(_POLL_S)
            if not alive:  # it closed both pipes, and ends now or goes on
                with suppress(CommandTimedOut):
                    self._child.wait(_POLL_S)
        if self._problem is not None:
            raise self._problem
        return stopped

    def _look(self) -> None:
        try:
            text = Path(f"/proc/{self._child.pid}/io").read_text(encoding="ascii")
        except OSError:
            return  # it ended; the last figure stands
        self.read_bytes = int(text.split("rchar: ", 1)[1].split("\n", 1)[0])

    def _read_stdout(self) -> None:
        self.stdout = self._child.stdout.read()

    def _read_stderr(self) -> None:
        for line in self._child.stderr:
            message = parse_line(line)
            if message is None:
                continue
            if isinstance(message, LogMessage):
                self._keep(message)
            if self._listener is not None and self._problem is None:
                try:
                    self._listener(message)
                except Exception as error:  # noqa: BLE001 - raised again by wait(); the pipe must be read on
                    self._problem = error

    def _keep(self, message: LogMessage) -> None:
        if message.is_warning:
            logger.info("borg: %s", message.message)
        self.messages.append(message)
        del self.messages[:-_KEPT_MESSAGES]
