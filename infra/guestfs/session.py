"""One appliance: guestfish, told what to do through its standard input (guestfish(1)).

Its answers are told apart by a line that only we know; what it says on standard error goes to a file, which has grown
when a command has failed.
"""

import os
import re
import select
import shlex
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from infra.errors import CommandNotFound
from infra.errors_views import ApplianceFailed, GuestPathError
from infra.process import Child, spawn

LAUNCH_S, ANSWER_S = 600.0, 3600.0
_EMULATION = "force_tcg"
_COMPLAINT = re.compile("error:|unknown command|usage:")
_SETTINGS = "LIBGUESTFS_BACKEND_SETTINGS"


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk for the appliance; it only reads it."""

    path: str
    format: str


def quoted(text: str) -> str:
    """A word for guestfish: every byte that is not plain as an escape (guestfish(1), Escape sequences)."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:=@%"
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'


class Appliance:
    """A running appliance. Its devices are sda, sdb, ... in the order of the drives."""

    def __init__(self, child: Child, errors: Path) -> None:
        self._child = child
        self._errors = errors
        self._seen = 0
        self._buffer = b""

    def do(self, *words: str, seconds: float = ANSWER_S) -> str:
        """Carry out one command; what it printed. Raises GuestPathError with what the appliance said."""
        text, complaint = self._ask(words, seconds)
        if complaint:
            raise GuestPathError(
                f"The appliance could not do this: {words[0]}.", evidence=f"{shlex.join(words)}: {complaint}"
            )
        return text

    def launch(self) -> None:
        """Start it. Raises ApplianceFailed."""
        _, complaint = self._ask(("run",), LAUNCH_S)
        if complaint:
            raise ApplianceFailed(
                "The appliance that reads the guest's file systems does not start.",
                evidence=complaint,
                remedy="Run libguestfs-test-tool; it needs a kernel in /boot and space in /var/tmp.",
            )

    def send(self, *words: str) -> None:
        """Begin a command whose end is not waited for. Raises ApplianceFailed."""
        line = " ".join([words[0], *map(quoted, words[1:])])
        try:
            self._child.stdin.write(f"-{line}\n")
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise self._dead() from error

    def leave_alone(self) -> None:
        """Let it go on without us until what was sent last ends."""
        self._child.stdin.close()
        self._child.release()

    def _ask(self, words: Sequence[str], seconds: float) -> tuple[str, str]:
        mark = uuid4().hex
        self.send(*words)
        self.send("echo", mark)
        text = self._until(f"{mark}\n".encode(), words, seconds)
        return text, self._complaint()

    def _until(self, mark: bytes, words: Sequence[str], seconds: float) -> str:
        descriptor = self._child.stdout.fileno()
        while mark not in self._buffer:
            if not select.select([descriptor], [], [], seconds)[0]:
                raise self._dead(f"no answer to {shlex.join(words)} within {seconds:.0f} s")
            content = os.read(descriptor, 1 << 16)
            if not content:
                raise self._dead()
            self._buffer += content
        text, _, self._buffer = self._buffer.partition(mark)
        return os.fsdecode(text)

    def _complaint(self) -> str:
        text = self._errors.read_bytes()
        new, self._seen = text[self._seen :], len(text)
        lines = [line for line in new.decode("utf-8", "replace").splitlines() if _COMPLAINT.search(line)]
        return "\n".join(line.split("libguestfs: error: ", 1)[-1] for line in lines)

    def _dead(self, why: str = "") -> ApplianceFailed:
        return ApplianceFailed(
            "The appliance that reads the guest's file systems ended.",
            evidence=why or self._errors.read_text("utf-8", "replace")[-2000:],
            remedy="Look at the evidence; libguestfs-test-tool tells whether it can run on this host.",
        )


@contextmanager
def appliance(drives: Sequence[Drive], *, work: Path, remember: Path, detached: bool = False) -> Generator[Appliance]:
    """Start one over these drives, for the block. `work` is a private folder for its files.

    Where it does not start on /dev/kvm it is started in emulation, and `remember` is a file that says so the next time.
    `detached` lets it outlive us. Raises ApplianceFailed, CommandNotFound.
    """
    ways: list[dict[str, str]] = [{}] if _SETTINGS in os.environ else [{}, {_SETTINGS: _EMULATION}]
    if len(ways) > 1 and (remember.exists() or not os.access("/dev/kvm", os.R_OK | os.W_OK)):
        ways = ways[1:]
    for number, way in enumerate(ways):
        with _guestfish(drives, work, way, detached=detached) as started:
            try:
                started.launch()
            except ApplianceFailed:
                if number + 1 < len(ways):
                    continue
                raise
            if number:
                remember.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                remember.write_text("The appliance does not start on /dev/kvm here.\n", encoding="ascii")
            yield started
            return


@contextmanager
def _guestfish(drives: Sequence[Drive], work: Path, way: dict[str, str], *, detached: bool) -> Generator[Appliance]:
    added = [part for drive in drives for part in (f"--format={drive.format}", "--add", drive.path)]
    environment = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_TMPDIR": str(work), "TMPDIR": str(work), **way}
    handle, name = tempfile.mkstemp(prefix="appliance-", suffix=".log", dir=work)
    with os.fdopen(handle, "wb") as errors:
        try:
            with spawn(
                ["guestfish", "--ro", *added],
                env=environment,
                stdin=True,
                stderr=errors,
                own_session=True,
                detached=detached,
            ) as child:
                yield Appliance(child, Path(name))
                if not child.released:
                    child.stdin.close()
        except CommandNotFound as error:
            error.remedy = "Install libguestfs-tools on this host."
            raise
