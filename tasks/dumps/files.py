"""Fetch the files of a `files` source over SFTP; what has not changed is taken over from the last tree."""

import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from infra.dumps.kinds import Files
from infra.dumps.manifest import Dump, DumpedSource, Failure, carried
from infra.dumps.source import Role
from infra.dumps.tree import create, storing
from infra.errors import DumpFailed
from infra.ssh.connection import Connection, SftpAttributes, SftpClient
from tasks.dumps.counting import Counting
from tasks.dumps.job import DumpJob, require_floor

_BLOCK = 128 * 1024
_IN_FLIGHT = 64  # blocks asked for before the first has come; bounds the memory
_RACE_S = 2.0  # SFTP's times are whole seconds: a file may change again within the one in which it was fetched
_DEEPEST = 100


def fetch_files(job: DumpJob, source: Files, connection: Connection) -> DumpedSource:
    """Fetch every path of the source. Raises ConnectionLost, SshError, NoSpace, StorageError, DumpFailed."""
    with connection.files(stall_s=job.host.stall_timeout) as client:
        done = _Fetching(job, source, client).everything()
    last, now = (sum(dump.size for dump in dumps) for dumps in (job.last_good(source), done.dumps))
    require_floor(job, source, what=repr(source.label), count=now, last=last)
    return done


class _Fetching:
    def __init__(self, job: DumpJob, source: Files, client: SftpClient) -> None:
        self._job = job
        self._source = source
        self._client = client
        self._counting = Counting(job, source.label, expected=sum(dump.size for dump in job.last_good(source)))
        self._known = {dump.path: dump for dump in job.last_good(source)}
        self._dumps: list[Dump] = []
        self._failures: list[Failure] = []
        self._links: list[tuple[str, str]] = []
        self._folders: list[tuple[str, SftpAttributes]] = []
        self._skipped = 0

    def everything(self) -> DumpedSource:
        for path in self._source.paths:
            for remote, found in self._walk(path.rstrip("/") or "/", 0):
                self._visit(remote, found)
        # Last: no file is ever written through a link that the other side made.
        for local, target in self._links:
            self._link(local, target)
        for local, found in reversed(self._folders):
            _dress(self._job.tree.path(local), found)
        self._counting.tell()
        return DumpedSource(
            source=self._source.label,
            kind=self._source.kind,
            dumps=tuple(self._dumps),
            failures=tuple(self._failures),
            skipped=self._skipped,
        )

    def _walk(self, remote: str, depth: int) -> Iterator[tuple[str, SftpAttributes]]:
        if self._source.is_excluded(remote):
            return
        try:
            found = self._client.lstat(remote)
            names = self._names(remote) if stat.S_ISDIR(found.st_mode or 0) else []
        except FileNotFoundError as error:
            if depth == 0:
                self._fail(remote, error)
            return  # it went away while we walked
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            self._fail(remote, error)
            return
        yield remote, found
        if depth > _DEEPEST:
            raise DumpFailed(
                f"The folders below {self._source.paths[0]} have no end.", evidence=remote, remedy="Exclude this path."
            )
        for name in names:
            yield from self._walk(f"{remote.rstrip('/')}/{name}", depth + 1)

    def _names(self, remote: str) -> list[str]:
        try:
            names = sorted(self._client.listdir(remote))
        except UnicodeDecodeError as error:
            raise DumpFailed(
                f"A name in {remote} is not UTF-8, so its folder cannot be listed.",
                evidence=str(error),
                remedy="Rename it, or exclude the folder.",
            ) from error
        for name in names:
            if name in {"", ".", ".."} or "/" in name or "\0" in name:
                raise DumpFailed(
                    f"The host lists a name in {remote} that no file can have.",
                    evidence=repr(name),
                    remedy="Look at this host: somebody else may answer in its place.",
                )
        return names

    def _local(self, remote: str) -> str:
        return f"{self._source.label}/{remote.lstrip('/')}".rstrip("/")

    def _visit(self, remote: str, found: SftpAttributes) -> None:
        mode = found.st_mode or 0
        local = self._local(remote)
        if stat.S_ISDIR(mode):
            self._job.tree.path(f"{local}/.").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folders.append((local, found))
        elif stat.S_ISREG(mode):
            self._file(remote, local, found)
        elif stat.S_ISLNK(mode):
            target = self._client.readlink(remote)
            self._links.append((local, target or ""))
        else:
            self._skipped += 1

    def _file(self, remote: str, local: str, found: SftpAttributes) -> None:
        last = self._known.get(local)
        if last is not None and _unchanged(last, found) and self._job.tree.adopt(local):
            _dress(self._job.tree.path(local), found)
            self._counting.add(last.size)
            fresh = {"stale": False, "error": "", "seconds": 0.0}
            self._dumps.append(last.model_copy(update=fresh))
            return
        try:
            dump = self._fetch(remote, local, found)
            now = self._client.lstat(remote)
            if (now.st_size, now.st_mtime) != (found.st_size, found.st_mtime):  # it was written to meanwhile
                dump = self._fetch(remote, local, now)
            self._dumps.append(dump)
        except FileNotFoundError:
            return
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            self._job.tree.path(local).unlink(missing_ok=True)
            self._fail(remote, error)

    def _fetch(self, remote: str, local: str, found: SftpAttributes) -> Dump:
        path = self._job.tree.path(local)
        path.unlink(missing_ok=True)
        digest, count = hashlib.sha256(), 0
        with self._client.open(remote, "rb") as source:
            if found.st_size:
                source.prefetch(found.st_size, _IN_FLIGHT)
            with storing(path.parent):
                target = create(path)
            with target:
                while block := source.read(_BLOCK):
                    with storing(path.parent):
                        target.write(block)
                    digest.update(block)
                    count += len(block)
                    self._counting.add(len(block))
        _dress(path, found)
        return Dump(
            role=Role.FILE,
            path=local,
            size=count,
            sha256=digest.hexdigest(),
            taken=datetime.now(UTC),
            mtime=float(found.st_mtime or 0),
        )

    def _fail(self, remote: str, error: OSError) -> None:
        local = self._local(remote)
        said = f"{remote}: {error.strerror or error}"
        self._failures.append(Failure(role=Role.FILE, path=local, error=said))
        below = [dump for path, dump in self._known.items() if path == local or path.startswith(f"{local}/")]
        self._dumps += [carried(dump, said) for dump in below if self._job.tree.adopt(dump.path)]

    def _link(self, local: str, target: str) -> None:
        try:
            self._job.tree.path(local).symlink_to(target)
        except OSError as error:
            self._failures.append(Failure(role=Role.FILE, path=local, error=f"{local}: {error.strerror or error}"))


def _unchanged(last: Dump, found: SftpAttributes) -> bool:
    same = (last.size, last.mtime) == (found.st_size, float(found.st_mtime or 0))
    return same and abs(last.taken.timestamp() - last.mtime) > _RACE_S


def _dress(path: Path, found: SftpAttributes) -> None:
    """Give a file the mode, owner and time that it has on its host."""
    with storing(path.parent):
        if os.geteuid() == 0 and found.st_uid is not None and found.st_gid is not None:
            os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
        path.chmod(stat.S_IMODE(found.st_mode or 0o600))
        when = float(found.st_mtime or 0)
        os.utime(path, (when, when))
