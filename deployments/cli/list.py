"""`vmborg list`: what there is to restore."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.output import exit_code_of
from deployments.cli.words import moment, size
from infra.errors import ArchiveNotFound

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.catalogue import Catalogue, VmArchive


@click.command
@click.argument("vm", required=False)
@click.option("--repository", metavar="NAME", help="Only this repository.")
@pass_context
def command(context: Context, *, vm: str | None, repository: str | None) -> int:
    """List the archives of every VM, or of VM (a name or the beginning of a UUID), oldest first.

    Unfinished archives are marked; they are never restored. SUSPECT ones may hold stale data. Exit code 1 if a
    repository could not be read.
    """
    from tasks.catalogue import read_catalogue, select

    catalogue = read_catalogue(context.config, only=repository)
    doubtful = _suspects(context)
    archives = list(catalogue.archives) if vm is None else select(catalogue.archives, vm)
    errors = context.output.errors_of(catalogue.failures)
    if vm is not None and not archives:
        raise _none(vm, catalogue)
    proofs = _proofs(context, archives)
    context.output.document(
        {
            "archives": [
                {
                    **_data(archive),
                    "suspect": doubtful.get(archive.archive, ""),
                    "proven": proofs.get(archive.archive),
                }
                for archive in archives
            ],
            "errors": errors,
        }
    )
    if archives:
        _print(context, sorted(archives, key=lambda each: (each.vm, each.time)), doubtful, proofs)
    elif not catalogue.failures:
        context.output.line("No archives yet: `vmborg backup --all` makes the first.")
    return exit_code_of(list(catalogue.failures.values()))


def _none(vm: str, catalogue: "Catalogue") -> ArchiveNotFound:
    from difflib import get_close_matches

    known = sorted({archive.vm for archive in catalogue.archives})
    close = get_close_matches(vm, known, n=3)
    unread = f"; not read: {', '.join(catalogue.failures)}" if catalogue.failures else ""
    return ArchiveNotFound(
        f"There is no archive of a VM {vm!r}.",
        evidence=f"there are archives of: {', '.join(known) or 'no VM'}{unread}",
        remedy=f"Did you mean {' or '.join(map(repr, close))}?"
        if close
        else "See `vmborg list` and `virsh list --all`.",
    )


def _suspects(context: Context) -> dict[str, str]:
    """Archives that may hold stale data; a file that cannot be read hides no archive."""
    from infra.errors import JournalError
    from tasks.memory import suspects

    try:
        return suspects(context.config.state)
    except JournalError as error:
        context.output.error_of("suspect archives", error)
        return {}


def _proofs(context: Context, archives: "list[VmArchive]") -> "dict[str, datetime]":
    """When this host proved archives to restore, by archive: the last one of each VM."""
    from infra.errors import JournalError
    from tasks.drills.proofs import read_proof

    found: dict[str, datetime] = {}
    for uuid in {archive.uuid for archive in archives}:
        try:
            proof = read_proof(context.config.state, uuid)
        except JournalError as error:
            context.output.error_of("proof", error)
            continue
        if proof.proven is not None:
            found[proof.archive] = proof.proven
    return found


def _print(
    context: Context, archives: "list[VmArchive]", doubtful: dict[str, str], proofs: "dict[str, datetime]"
) -> None:
    several = len(context.config.repositories) > 1
    headers = ["VM", "time", "consistency", "disks", "size", "archive", *(["repository"] if several else [])]
    if proofs:
        headers.append("proven")
    if any(archive.dumps for archive in archives):
        headers.append("with dumps")
    rows = [
        [
            archive.vm,
            moment(archive.time),
            _judged(archive, suspect=archive.archive in doubtful),
            _disks(archive),
            size(archive.size),
            archive.archive,
            *([archive.repository] if several else []),
            *([moment(proofs[archive.archive]) if archive.archive in proofs else "-"] if proofs else []),
            *([" ".join(archive.dumps) or "-"] if "with dumps" in headers else []),
        ]
        for archive in archives
    ]
    context.output.table(headers, rows, right=("size",))


def _judged(archive: "VmArchive", *, suspect: bool) -> str:
    return ("SUSPECT" if suspect else archive.consistency) if archive.finished else "UNFINISHED"


def _disks(archive: "VmArchive") -> str:
    covered = " ".join(archive.disks) or "-"
    return f"{covered} (not {' '.join(archive.uncovered)})" if archive.uncovered else covered


def _data(archive: "VmArchive") -> dict[str, object]:
    return {
        "vm": archive.vm,
        "uuid": archive.uuid,
        "archive": archive.archive,
        "repository": archive.repository,
        "time": archive.time,
        "finished": archive.finished,
        "partial": bool(archive.uncovered),
        "consistency": archive.consistency,
        "frozen_ms": archive.frozen_ms,
        "disks": dict(archive.disks),
        "size": archive.size,
        "uncovered": list(archive.uncovered),
        "hypervisor": archive.hypervisor,
        "dumps": list(archive.dumps),
    }
