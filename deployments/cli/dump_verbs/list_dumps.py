"""`vmborg dumps list`: which dumps there are to restore."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.output import exit_code_of
from deployments.cli.words import moment, size
from infra.errors import ArchiveNotFound

if TYPE_CHECKING:
    from infra.dumps.manifest import DumpManifest
    from tasks.catalogue import Catalogue
    from tasks.dumps.catalogue import DumpArchive


@click.command("list")
@click.argument("host", required=False)
@click.option("--archive", metavar="NAME", help="Show every dump that this archive of HOST holds.")
@click.option("--repository", metavar="NAME", help="Only this repository.")
@pass_context
def command(context: Context, *, host: str | None, archive: str | None, repository: str | None) -> int:
    """List the archives of every dump host, or of HOST, oldest first.

    Exit code 1 if a repository could not be read.
    """
    from tasks.catalogue import read_catalogue

    if archive is not None:
        return _show(context, host or "", archive, repository)
    catalogue = read_catalogue(context.config, only=repository)
    found = [each for each in catalogue.dumps if host in {None, each.host}]
    errors = context.output.errors_of(catalogue.failures)
    if host is not None and not found and not catalogue.failures:
        raise _none(host, catalogue)
    context.output.document(
        {
            "archives": [_data(each) for each in found],
            "errors": errors,
        }
    )
    if found:
        _print(context, found)
    elif not catalogue.failures:
        context.output.line("No dumps yet: `vmborg dumps pull` makes the first.")
    return exit_code_of(list(catalogue.failures.values()))


def _none(host: str, catalogue: "Catalogue") -> ArchiveNotFound:
    known = ", ".join(sorted({each.host for each in catalogue.dumps})) or "no host"
    return ArchiveNotFound(
        f"There is no archive of dumps of {host!r}.",
        evidence=f"there are archives of: {known}",
        remedy="See `vmborg dumps list`.",
    )


def _print(context: Context, archives: "list[DumpArchive]") -> None:
    several = len(context.config.repositories) > 1
    rows = [
        [
            each.host,
            moment(each.time),
            _state(each),
            " ".join(f"{label}:{count}" for label, count in each.sources),
            size(each.size),
            each.vm or "-",
            each.archive,
            *([each.repository] if several else []),
        ]
        for each in archives
    ]
    headers = ["host", "time", "state", "sources", "size", "before VM", "archive", *(["repository"] if several else [])]
    context.output.table(headers, rows, right=("size",))


def _state(archive: "DumpArchive") -> str:
    if not archive.finished:
        return "UNFINISHED"
    return f"not whole: {' '.join(archive.bad)}" if archive.bad else "good"


def _data(archive: "DumpArchive") -> dict[str, object]:
    return {
        "host": archive.host,
        "archive": archive.archive,
        "repository": archive.repository,
        "time": archive.time,
        "finished": archive.finished,
        "good": archive.finished and not archive.bad,
        "bad": list(archive.bad),
        "sources": dict(archive.sources),
        "size": archive.size,
        "vm": archive.vm,
        "hypervisor": archive.hypervisor,
    }


def _show(context: Context, host: str, archive: str, repository: str | None) -> int:
    from tasks.dumps.restore import open_archive

    manifest: DumpManifest = open_archive(context.config, host, archive, repository=repository).manifest
    context.output.document(manifest.model_dump(mode="json"))
    rows = [
        (
            source.source,
            dump.title,
            "stale" if dump.stale else "good",
            moment(dump.taken),
            size(dump.size),
            dump.path,
        )
        for source in manifest.sources
        for dump in source.dumps
    ]
    rows += [
        (source.source, failure.title, "failed", "-", "-", failure.error)
        for source in manifest.sources
        for failure in source.failures
    ]
    context.output.table(("source", "dump", "state", "taken", "size", "path"), rows, right=("size",))
    return 0
