"""Run a program to its end (`run`) or beside us (`spawn`).

Children stay in our process group, so that a cancelled Prefect run takes them along, and get a parent-death signal
(prctl(2), PR_SET_PDEATHSIG), so that a copy never outlives the run that guards its overlay. Secrets travel through a
pipe whose descriptor number is put into the environment (borg: BORG_PASSPHRASE_FD), never through argv or environment.
"""

import ctypes
import logging
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from infra.errors import CommandFailed, CommandNotFound, CommandTimedOut
from infra.process.signals import HeldSignals

logger = logging.getLogger("vmborg.process")

_PR_SET_PDEATHSIG = 1
_EVIDENCE_LINES = 20
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def describe(argv: Sequence[str], returncode: int, output: str) -> str:
    """The evidence of a failure: command, exit code or signal, last lines."""
    names = {number.value: number.name for number in signal.Signals}  # most real-time signals have none
    killer = names.get(-returncode, f"signal {-returncode}")
    ending = f"was killed by {killer}" if returncode < 0 else f"exited with {returncode}"
    lines = output.strip().splitlines()[-_EVIDENCE_LINES:]
    return "\n".join([f"{shlex.join(argv)} {ending}", *lines])


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    check: bool = True,
    env: Mapping[str, str | None] | None = None,
    cwd: str | None = None,
    input_text: str | None = None,
    secrets: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end and return what it printed.

    `timeout` is in seconds. `secrets` maps an environment variable to a secret; the program finds the number of a
    readable descriptor in that variable.

    Raises CommandNotFound, CommandTimedOut (the program was killed), and CommandFailed if `check` and it failed.
    """
    with spawn(argv, env=env, cwd=cwd, secrets=secrets, stdin=input_text is not None) as child:
        try:
            stdout, stderr = child.popen.communicate(input_text, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise CommandTimedOut(
                f"{argv[0]} did not end within {timeout:g} s.",
                evidence=shlex.join(argv),
                remedy="Look whether the storage or the other side hangs, then try again.",
            ) from error
    completed = Completed(tuple(argv), child.popen.returncode, stdout or "", stderr or "")
    if check and completed.returncode != 0:
        raise CommandFailed(
            f"{argv[0]} failed.",
            evidence=describe(argv, completed.returncode, completed.stderr or completed.stdout),
            returncode=completed.returncode,
        )
    return completed


class Child:
    """A program that runs beside us. Made by `spawn`."""

    def __init__(self, popen: subprocess.Popen[str], argv: tuple[str, ...]) -> None:
        self.popen = popen
        self.argv = argv
        self.released = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    @property
    def stdin(self) -> IO[str]:
        """Its standard input; only with `spawn(..., stdin=True)`."""
        return _piped(self.popen.stdin)

    @property
    def stdout(self) -> IO[str]:
        """Its standard output, as text."""
        return _piped(self.popen.stdout)

    @property
    def stderr(self) -> IO[str]:
        """Its standard error, as text."""
        return _piped(self.popen.stderr)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, `timeout` in seconds. Raises CommandTimedOut; the program goes on then."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise CommandTimedOut(
                f"{self.argv[0]} did not end within {timeout:g} s.", evidence=shlex.join(self.argv)
            ) from error

    def finish(self, timeout: float) -> Completed:
        """Close its standard input and wait for its end, `timeout` in seconds; what it has said since it was last read.

        Raises CommandTimedOut; the program goes on then.
        """
        try:
            stdout, stderr = self.popen.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise CommandTimedOut(
                f"{self.argv[0]} did not end within {timeout:g} s.", evidence=shlex.join(self.argv)
            ) from error
        return Completed(self.argv, self.popen.returncode, stdout or "", stderr or "")

    def terminate(self, grace: float = 10.0) -> int:
        """End it: SIGTERM, and SIGKILL after `grace` seconds. Safe to call when it ended already."""
        if self.popen.poll() is None:
            # A stopped process never sees SIGTERM.
            self.popen.terminate()
            self.popen.send_signal(signal.SIGCONT)
            try:
                return self.popen.wait(grace)
            except subprocess.TimeoutExpired:
                logger.warning("%s ignored SIGTERM for %g s; killing it", self.argv[0], grace)
                self.kill()
        return self.popen.wait()

    def release(self) -> None:
        """Let it live on beyond the block that started it. Its pipes are closed there; a thread reaps it."""
        self.released = True
        threading.Thread(target=self.popen.wait, daemon=True).start()

    def kill(self) -> None:
        """SIGKILL and reap."""
        self.popen.kill()
        self.popen.wait()


@contextmanager
def spawn(  # noqa: PLR0913 - each is a thing that callers vary
    argv: Sequence[str],
    *,
    env: Mapping[str, str | None] | None = None,
    cwd: str | None = None,
    secrets: Mapping[str, str] | None = None,
    stdin: bool = False,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    own_session: bool = False,
    detached: bool = False,
) -> Generator[Child]:
    """Start a program; at the end of the block it is terminated if it still runs and was not released.

    `env` is added to ours (with LANG=C.UTF-8, which borg and qemu-img need for stable messages); None takes a variable
    away. `stdout` and `stderr` are files instead of pipes. `own_session` keeps the terminal's Ctrl-C from it;
    `detached` lets it outlive us too.

    Raises CommandNotFound.
    """
    logger.debug("+ %s", shlex.join(argv))
    with HeldSignals() as held:
        descriptors = {variable: _readable(secret) for variable, secret in (secrets or {}).items()}
        try:
            popen = _start(
                argv,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=stdout or subprocess.PIPE,
                stderr=stderr or subprocess.PIPE,
                env=_environment(env or {}, descriptors),
                cwd=cwd,
                pass_fds=tuple(descriptors.values()),
                start_new_session=own_session or detached,
                preexec_fn=None if detached else _prepare_child(os.getpid()),
            )
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)
        child = Child(popen, tuple(argv))
        try:
            held.release()  # from here on somebody ends the program, whatever is raised
            yield child
        finally:
            _end(child)


def _end(child: Child) -> None:
    if not child.released:
        child.terminate()
    for stream in (child.popen.stdin, child.popen.stdout, child.popen.stderr):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def _start(argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(list(argv), text=True, encoding="utf-8", errors="replace", **options)
    except (FileNotFoundError, PermissionError) as error:
        raise CommandNotFound(
            f"{argv[0]} cannot be started.",
            evidence=f"{shlex.join(argv)}: {error.strerror}",
            remedy=f"Install {argv[0]} on this host.",
        ) from error


def _environment(env: Mapping[str, str | None], descriptors: Mapping[str, int]) -> dict[str, str]:
    merged: dict[str, str | None] = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **env}
    merged |= {variable: str(descriptor) for variable, descriptor in descriptors.items()}
    return {variable: value for variable, value in merged.items() if value is not None}


def _piped(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise ValueError("the program was started without this pipe")
    return stream


def _prepare_child(parent: int) -> Callable[[], None]:
    """What the child does between fork and exec: default signals, and die when the run that started it dies.

    It takes no lock and allocates nothing of note, so the danger of preexec_fn in threaded programs does not arise.
    """

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return prepare


def _readable(secret: str) -> int:
    """A descriptor from which `secret` can be read once, fed by a thread so that no size can block us."""
    reader, writer = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writer, "w", encoding="utf-8") as pipe:
            pipe.write(secret)

    threading.Thread(target=feed, daemon=True).start()
    return reader
