"""What keeps a repository small and sound: compact, check, and its lock held while others copy it."""

import re
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from infra.borg.client import Repository
from infra.borg.command import binary, environment, run_borg
from infra.borg.failures import failure
from infra.borg.locks import holders
from infra.borg.messages import LogMessage, Message, PercentProgress, parse_line
from infra.errors import ArchiveIncomplete, RepositoryDamaged, RepositoryLocked
from infra.errors_upkeep import RepositoryAppendOnly
from infra.process import Child, spawn

_FREED = re.compile(r"^(?:Remote: )?compaction freed about (.+) repository space\.")
_SIZE = re.compile(r"(-?[\d.]+) ?([kMGTPEZY]?)B")
_POWERS = " kMGTPEZY"
_LOCKED = "locked"

OnProgress = Callable[[PercentProgress], None]


def compact(repository: Repository) -> int:
    """Free the space of deleted archives; about how many bytes it freed.

    borg says "compaction freed about ..." when it compacts (borg/repository.py), and "Remote: " before
    that when a server did (borg/remote.py, handle_remote_line). A server that runs `borg serve --append-only` takes the
    command, does nothing, and says nothing: that is all a client sees of it.
    Raises RepositoryAppendOnly when the line is missing, and BorgError's subtypes.
    """
    said: list[str] = []

    def listen(message: Message) -> None:
        if isinstance(message, LogMessage):
            said.append(message.message)

    run_borg(repository.target, ["compact", "--verbose", repository.location], listener=listen)
    freed = next((found[1] for line in said if (found := _FREED.match(line))), None)
    if freed is None:
        raise RepositoryAppendOnly(
            f"The repository {repository.location} refuses to free space: it is append-only for us.",
            evidence="borg compact --verbose ended well and does not say that it freed anything",
            remedy="Set append_only: true for this repository, and prune from a host whose key may delete.",
        )
    return parse_size(freed)


def parse_size(text: str) -> int:
    """`12.34 MB` as bytes; decimal units, as borg writes them. 0 for what is no size."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found[1]) * 1000 ** _POWERS.index(found[2] or " ")) if found else 0


def check_segments(repository: Repository, *, seconds: int, on_progress: OnProgress | None = None) -> None:
    """Check the segments' checksums, for so many seconds; the next call goes on where this one ended.

    0 seconds check all of them, and the index. Raises RepositoryDamaged, and BorgError's subtypes.
    """
    _check(repository, ["--repository-only", *(["--max-duration", str(seconds)] if seconds else [])], on_progress)


def check_everything(repository: Repository, *, verify_data: bool, on_progress: OnProgress | None = None) -> None:
    """Check segments and the metadata of all archives; with `verify_data` every byte is read and decrypted.

    Raises RepositoryDamaged, and BorgError's subtypes.
    """
    _check(repository, ["--verify-data"] if verify_data else [], on_progress)


def _check(repository: Repository, options: Sequence[str], on_progress: OnProgress | None) -> None:
    said: list[str] = []

    def listen(message: Message) -> None:
        if isinstance(message, PercentProgress) and on_progress is not None:
            on_progress(message)
        elif isinstance(message, LogMessage) and message.is_warning:
            said.append(message.message)

    argv = ["check", *(["--progress"] if on_progress else []), *options, repository.location]
    try:
        run_borg(repository.target, argv, listener=listen)
    except ArchiveIncomplete as error:
        # borg calls damage that it found a warning (exit code 1, also with modern codes; borg/archiver.py, do_check).
        raise RepositoryDamaged(
            f"borg found damage in the repository {repository.location}.",
            evidence="\n".join([error.evidence, *said[-10:]]),
            remedy="Do not prune or compact. Copy the repository as it is, look at the storage below it (smartctl, "
            "journalctl -k), then read docs/retention.md, 'When check finds damage'.",
            returncode=error.returncode,
        ) from error


@contextmanager
def locked(repository: Repository, *, lock_wait: int | None = None) -> Generator[Callable[[], None]]:
    """Hold the repository's lock for the length of the block, by `borg with-lock`.

    No other borg may be started on it inside. Yields a function that raises RepositoryLocked when the lock was lost.
    The lock is given up when the block ends, and when this process dies: the program that borg waits for reads our
    pipe to its end. Raises BorgError's subtypes.
    """
    target = repository.target
    wait = target.lock_wait if lock_wait is None else lock_wait
    argv = [binary(), "--log-json", "--lock-wait", str(wait), "with-lock", target.location]
    argv += ["sh", "-c", f"echo {_LOCKED}; exec cat >/dev/null"]
    target.base_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with spawn(
        argv,
        env=environment(target),
        secrets={"BORG_PASSPHRASE_FD": target.passphrase or ""},
        stdin=True,
        own_session=True,
    ) as child:
        messages = _Messages(child)
        if child.stdout.readline().strip() != _LOCKED:
            raise _refused(child, messages, argv, target.location)

        def require_lock() -> None:
            if child.poll() is not None:
                raise _refused(child, messages, argv, target.location)

        try:
            yield require_lock
        finally:
            child.stdin.close()
            child.wait(60)


class _Messages:
    """Reads a borg's messages, so that the pipe never blocks it."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._found: list[LogMessage] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        parsed = (parse_line(line) for line in self._child.stderr)
        self._found += [message for message in parsed if isinstance(message, LogMessage)]

    def all(self) -> list[LogMessage]:
        """All of them; it has ended."""
        self._thread.join(5)
        return self._found


def _refused(child: Child, messages: _Messages, argv: Sequence[str], location: str) -> Exception:
    code = child.wait(60)
    error = failure(argv, code or 1, messages.all(), location=location)
    if isinstance(error, RepositoryLocked):
        error.evidence = "\n".join([error.evidence, *holders(error.evidence)])
    return error or RepositoryLocked(f"The lock of {location} was lost.", evidence=f"borg with-lock ended ({code})")
