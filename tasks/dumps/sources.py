"""The step `dump`: one source of one host, every dump of it proven whole or not there."""

import hashlib
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from infra.dumps.kinds import Files
from infra.dumps.manifest import Dump, DumpedSource, Failure, carried
from infra.dumps.script import first_lines
from infra.dumps.source import Role, Source, Unit
from infra.dumps.tree import create, storing
from infra.errors import CommandFailed, CommandNotFound, DumpFailed, DumpIncomplete, NoSpace, VmborgError
from infra.process import run
from infra.ssh.connection import Connection, connect
from tasks.dumps.asking import Asking
from tasks.dumps.counting import Counting
from tasks.dumps.files import fetch_files
from tasks.dumps.job import DumpJob, require_floor
from tasks.policy import step
from tasks.units import size

logger = logging.getLogger("vmborg.dumps")

_PROOF_TIMEOUT_S = 8 * 3600.0


@dataclass(slots=True)
class _Sink:
    """Takes a dump's blocks: writes, digests and counts them. Raises NoSpace, StorageError."""

    file: BinaryIO
    path: Path
    counting: Counting
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def __call__(self, block: bytes) -> None:
        with storing(self.path.parent):
            self.file.write(block)
        self.digest.update(block)
        self.size += len(block)
        self.counting.add(len(block))


@step("reach", retries=True)
def reach(job: DumpJob) -> None:
    """Log in once, before anything is begun. Raises HostUnreachable, HostKeyUnknown, HostKeyChanged, LoginRefused."""
    with connect(job.endpoint):
        logger.info("%s: logged in at %s as %s", job.name, job.endpoint.place, job.endpoint.user)


@step("dump", retries=True)
def dump_source(job: DumpJob, source: Source) -> DumpedSource:
    """Dump everything that a source has. What fails is kept as it was in the last tree, marked stale.

    Raises what concerns the whole source: HostUnreachable, ConnectionLost (both are tried again), SshError's others,
    DumpFailed of the listing, ConfigError of its password.
    """
    begun = time.monotonic()
    with connect(job.endpoint) as connection:
        if isinstance(source, Files):
            result = fetch_files(job, source, connection)
        else:
            result = _Dumping(job, source, connection).everything()
    done = result.model_copy(update={"seconds": round(time.monotonic() - begun, 3)})
    fresh = [dump for dump in done.dumps if not dump.stale]
    logger.info("%s: %s: %d dumps, %s", job.name, source.label, len(fresh), size(sum(dump.size for dump in fresh)))
    for problem in done.problems:
        logger.error("%s: %s", job.name, problem)
    return done


class _Dumping:
    """One source while it is dumped over one connection."""

    def __init__(self, job: DumpJob, source: Source, connection: Connection) -> None:
        self._job = job
        self._source = source
        self._connection = connection
        self._counting = Counting(job, source.label, expected=sum(dump.size for dump in job.last_good(source)))
        self._asking = Asking(job.name, source, connection, job.password(source))

    def everything(self) -> DumpedSource:
        tool = self._asking.version()
        dumps: list[Dump] = []
        failures: list[Failure] = []
        for unit in self._source.units(self._asking.names()):
            try:
                dumps.append(self._take(unit))
            except VmborgError as error:
                self._job.tree.path(unit.path).unlink(missing_ok=True)
                if error.transient:
                    raise
                failures.append(_failure(unit, error))
                dumps += keep_last(self._job, self._source, failures[-1])
        self._counting.tell()
        label, kind = self._source.label, str(self._source.kind)
        return DumpedSource(source=label, kind=kind, tool=tool, dumps=tuple(dumps), failures=tuple(failures))

    def _take(self, unit: Unit) -> Dump:
        begun = time.monotonic()
        path = self._job.tree.path(unit.path)
        path.unlink(missing_ok=True)  # of an attempt that was lost
        named = unit.role is Role.DATABASE
        with storing(path.parent):
            file = create(path)
        with file:
            sink = _Sink(file, path, self._counting)
            ended = self._connection.receive(
                self._asking.command(unit.script, named=named),
                sink,
                first=self._first(unit, named=named),
                stall_s=self._job.host.stall_timeout,
                deadline_s=self._job.host.deadline,
            )
        self._asking.require_success(ended, unit.script, what=f"The dump of {self._what(unit)} failed")
        self._require_size(unit, sink.size)
        self._source.prove(unit, path)
        self._run_proof(unit, path)
        return Dump(
            role=unit.role,
            database=unit.database,
            path=unit.path,
            size=sink.size,
            sha256=sink.digest.hexdigest(),
            taken=datetime.now(UTC),
            seconds=round(time.monotonic() - begun, 3),
            exit_code=ended.exit_code,
        )

    def _what(self, unit: Unit) -> str:
        return f"{self._source.label!r}" if unit.role is Role.DUMP else f"{unit.title!r} of {self._source.label!r}"

    def _first(self, unit: Unit, *, named: bool) -> bytes:
        try:
            return first_lines(password=self._asking.password, name=unit.database if named else None)
        except ValueError as error:
            raise DumpFailed(
                f"{unit.title!r} of {self._source.label!r} cannot be dumped by its name.",
                evidence=f"{unit.database!r}: {error}",
                remedy="Exclude it, or give it a name that is one line.",
            ) from error

    def _require_size(self, unit: Unit, count: int) -> None:
        if not count:
            raise DumpIncomplete(
                f"The dump of {self._what(unit)} is empty.",
                evidence=f"exit code 0, and no byte: {unit.script}",
                remedy="Run the command on the dump host and look.",
            )
        last = self._job.last_good_of(self._source, unit.role, database=unit.database)
        require_floor(self._job, self._source, what=self._what(unit), count=count, last=last.size if last else 0)

    def _run_proof(self, unit: Unit, path: Path) -> None:
        command = self._source.proof_command(unit, path)
        if not command:
            return
        try:
            run(command, timeout=_PROOF_TIMEOUT_S)
        except CommandNotFound as error:
            raise DumpIncomplete(
                f"The dump of {self._what(unit)} cannot be proven whole: {command[0]} is missing here.",
                evidence=error.evidence,
                remedy=f"Install {command[0]} on this host, not older than the server.",
            ) from error
        except CommandFailed as error:
            raise DumpIncomplete(
                f"The dump of {self._what(unit)} is not whole, or is newer than {command[0]} here.",
                evidence=error.evidence,
                remedy=f"Compare {command[0]} --version here with the server's; look at the database's log.",
            ) from error


def _failure(unit: Unit, error: VmborgError) -> Failure:
    if isinstance(error, NoSpace):
        logger.error("%s", error)
    code = error.status if isinstance(error, DumpFailed) else None
    return Failure(role=unit.role, database=unit.database, path=unit.path, error=one_line(error), exit_code=code)


def one_line(error: VmborgError) -> str:
    """What failed, the last of its evidence and what to do, for a manifest and a table."""
    lines = [line.strip() for line in error.evidence.splitlines() if line.strip()]
    remedy = f" What to do: {error.remedy}" if error.remedy else ""
    return f"{error.brief} {'; '.join(lines[-3:])}".strip()[:400] + remedy[:300]


def keep_last(job: DumpJob, source: Source, failure: Failure) -> list[Dump]:
    """The last good dump in place of one that failed; nothing if there is none."""
    last = job.last_good_of(source, failure.role, database=failure.database, path=failure.path)
    if last is None or not job.tree.adopt(last.path):
        return []
    return [carried(last, failure.error)]


def keep_all(job: DumpJob, source: Source, error: VmborgError) -> DumpedSource:
    """All last good dumps of a source of which nothing could be dumped."""
    said = one_line(error)
    kept: list[Dump] = []
    for dump in job.last_good(source):
        job.tree.path(dump.path).unlink(missing_ok=True)  # of an attempt that was lost
        if job.tree.adopt(dump.path):
            kept.append(carried(dump, said))
    return DumpedSource(source=source.label, kind=str(source.kind), dumps=tuple(kept), error=said)
