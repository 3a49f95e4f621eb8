"""What `doctor` looks at on a dump host: the way there, and whether each source could be dumped. Nothing is dumped.

It asks what every pull asks first (versions, the list of databases), so a key that may only dump is enough.
"""

import re
import shutil
from collections.abc import Generator, Iterator

from infra.config.dumps import DumpHost
from infra.config.models import Config
from infra.dumps.kinds import Command, Files
from infra.dumps.manifest import DumpManifest
from infra.dumps.source import Role, Source
from infra.errors import CommandNotFound, ManifestError, VmborgError
from infra.process import run
from infra.ssh.connection import Connection, connect
from tasks.dumps.asking import Asking
from tasks.dumps.hosts import endpoint, find_host, last_dumps, password_of
from tasks.health import Finding, Health, failed
from tasks.units import size

_MAJOR = re.compile(r"\s(\d+)")
_PROVER = "Install it here, not older than the server: no dump of this source counts without it."


def dump_host_findings(config: Config, name: str) -> Iterator[Finding]:
    """One dump host: the way there, its host key, the login, each source, the room for its dumps."""
    subject = f"dump host {name}"
    yield from _space(config, subject, name)
    try:
        with connect(endpoint(config, name)) as connection:
            place, user = connection.endpoint.place, connection.endpoint.user
            yield Finding(Health.OK, subject, "login", f"{user} at {place}; it shows the pinned host key")
            for source in find_host(config, name).sources:
                yield from _source(config, name, source, connection)
    except VmborgError as error:
        yield failed(error, subject=subject, check="login")


def _space(config: Config, subject: str, name: str) -> Iterator[Finding]:
    """Whether a second copy of the dumps, which a pull makes, has room beside the first."""
    try:
        last = last_dumps(config, name)
    except ManifestError as error:
        yield failed(error, subject=subject, check="space", health=Health.WARNING)
        return
    if last is None:
        return
    wanted, free = _fetched_anew(last), shutil.disk_usage(config.state.dumps).free
    text = f"{size(free)} free in {config.state.dumps}, the last dumps took {size(wanted)}"
    short = free < wanted
    remedy = "Make room there: the next pull writes them beside the last ones." if short else ""
    yield Finding(Health.WARNING if short else Health.OK, subject, "space", text, remedy)


def _fetched_anew(last: DumpManifest) -> int:
    return sum(dump.size for source in last.sources for dump in source.dumps if dump.role is not Role.FILE)


def _source(config: Config, name: str, source: Source, connection: Connection) -> Iterator[Finding]:
    subject, check = f"dump host {name}", f"source {source.label}"
    settings = find_host(config, name)
    try:
        if isinstance(source, Files):
            text = _paths(source, settings, connection)
        elif isinstance(source, Command):
            text = "a command, which only a pull runs"
        else:
            text = yield from _programs(Asking(name, source, connection, password_of(settings, name, source)), subject)
    except VmborgError as error:
        yield failed(error, subject=subject, check=check)
    else:
        yield Finding(Health.OK, subject, check, text)


def _paths(source: Files, settings: DumpHost, connection: Connection) -> str:
    with connection.files(stall_s=settings.stall_timeout) as client:
        for path in source.paths:
            try:
                client.lstat(path)
            except OSError as error:
                raise VmborgError(
                    f"{path} cannot be fetched.",
                    evidence=error.strerror or str(error),
                    remedy="Correct `paths`, or let the login on the dump host read it.",
                ) from error
    return f"SFTP answers, and has {', '.join(source.paths)}"


def _programs(asking: Asking, subject: str) -> Generator[Finding, None, str]:
    """Ask for the version and the list; say in the end what they are. What proves its dumps here is a finding too."""
    source = asking.source
    tool = asking.version()
    if source.prover:
        yield _prover(source, tool, subject)
    names = asking.names()
    listed = f"; {len(source.units(names))} dumps: {', '.join(names)}" if source.listing else ""
    return f"{tool}{listed}"


def _prover(source: Source, tool: str, subject: str) -> Finding:
    check = f"source {source.label}"
    try:
        here = run([source.prover, "--version"], timeout=30).stdout.strip()
    except CommandNotFound:
        return Finding(Health.CRITICAL, subject, check, f"{source.prover} is missing on this host", _PROVER)
    except VmborgError as error:
        return failed(error, subject=subject, check=check)
    return prover_finding(here, tool, subject=subject, check=check)


def prover_finding(here: str, there: str, *, subject: str, check: str) -> Finding:
    """Whether the program here can read what the one there writes. Pure; each is what `--version` says."""
    ours, theirs = _MAJOR.search(here), _MAJOR.search(there)
    if ours and theirs and int(ours[1]) < int(theirs[1]):
        return Finding(Health.CRITICAL, subject, check, f"{here} on this host is older than {there} there", _PROVER)
    return Finding(Health.OK, subject, check, f"{here} on this host proves its dumps")
