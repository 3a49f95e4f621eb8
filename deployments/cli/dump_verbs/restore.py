"""`vmborg dumps restore`: a dump into a file, or back into its database."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.words import moment
from infra.errors import UsageError

if TYPE_CHECKING:
    from infra.dumps.manifest import Dump
    from tasks.dumps.restore import Opened


@click.command("restore")
@click.argument("host", metavar="HOST")
@click.argument("source", metavar="SOURCE")
@click.option("--database", metavar="NAME", help="Which database of the source.")
@click.option("--globals", "users", is_flag=True, help="Its roles or users instead of a database.")
@click.option("--archive", metavar="NAME", help="From this archive; else the newest.")
@click.option("--repository", metavar="NAME", help="Only from this repository; else from that of HOST.")
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write it to this new file.")
@click.option("--into", is_flag=True, help="Stream it back over SSH into the database. What it holds replaces that.")
@click.option("--as", "name", metavar="NAME", help="With --into: into a database of this name, made if it is missing.")
@click.option("--user", metavar="NAME", help="With --into: log in as this user.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="With --into: log in with this key.")
@click.option("--yes", is_flag=True, help="With --into: do not ask.")
@pass_context
def command(context: Context, *, host: str, source: str, **options: Any) -> int:
    """Bring one dump of HOST back, into a file or into the database."""
    from tasks.dumps.restore import configured_source, find_dump, open_archive, require_way_back

    wanted = Wanted(host=host, source=source, **options)
    wanted.check()
    if wanted.into:
        require_way_back(configured_source(context.config, host, source))
    opened = open_archive(context.config, host, wanted.archive, repository=wanted.repository)
    if wanted.target is not None and _is_files(opened, source):
        return _files(context, opened, source, wanted.target.absolute())
    dump = find_dump(opened, source, wanted.database, users=wanted.users)
    if dump.stale:
        context.output.note(f"This dump was old already when it was archived: it is of {moment(dump.taken)}.")
    if wanted.target is not None:
        return _to_file(context, opened, dump, wanted.target.absolute())
    return _into(context, opened, dump, wanted)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    host: str
    source: str
    database: str | None
    users: bool
    archive: str | None
    repository: str | None
    target: Path | None
    into: bool
    name: str | None
    user: str | None
    key: Path | None
    yes: bool

    def check(self) -> None:
        """Raise UsageError for what does not fit together."""
        if (
            self.into == (self.target is not None)
            or (self.users and (self.database is not None or self.name is not None))
            or (self.target is not None and (self.name or self.user or self.key))
        ):
            raise UsageError(
                "Say where to: either --to FILE or --into.",
                evidence="--as, --user and --key belong to --into; --globals has no --database and no --as",
                remedy="See `vmborg dumps restore --help`.",
            )


def _is_files(opened: "Opened", source: str) -> bool:
    found = opened.manifest.source(source)
    return found is not None and found.kind == "files"


def _whence(opened: "Opened") -> dict[str, str]:
    return {"archive": opened.archive, "repository": opened.repository.name}


def _files(context: Context, opened: "Opened", source: str, target: Path) -> int:
    from tasks.dumps.restore import restore_files

    count = restore_files(opened, source, target)
    context.output.line(f"{count} files of {source} are in {target}.")
    context.output.document({**_whence(opened), "source": source, "path": target, "files": count})
    return 0


def _to_file(context: Context, opened: "Opened", dump: "Dump", target: Path) -> int:
    from tasks.dumps.restore import restore_to_file

    restore_to_file(opened, dump, target)
    context.output.line(f"{dump.title} of {moment(dump.taken)} is in {target}.")
    context.output.document({**_whence(opened), "dump": dump.model_dump(mode="json"), "path": target})
    return 0


def _into(context: Context, opened: "Opened", dump: "Dump", wanted: Wanted) -> int:
    from infra.dumps.source import Role
    from tasks.dumps.restore import Login, configured_source, restore_into

    source = configured_source(context.config, wanted.host, wanted.source)
    if wanted.name is not None and dump.role is not Role.DATABASE:
        raise UsageError("Only a database can be restored under another name.", remedy="Leave --as out.")
    renamed = dump.model_copy(update={"database": wanted.name or dump.database})
    question = f"Restore {dump.title} of {moment(dump.taken)} into {renamed.title} on {wanted.host}? It replaces that."
    if not wanted.yes and not click.confirm(question, err=True):
        context.output.line("Nothing was restored.")
        context.output.document({**_whence(opened), "restored": False})
        return 1
    login = Login(wanted.user, wanted.key)
    said = restore_into(context.config, opened, renamed, host=wanted.host, source=source, login=login)
    context.output.line(f"{dump.title} of {moment(dump.taken)} is in {renamed.title} on {wanted.host}.")
    context.output.document({**_whence(opened), "restored": True, "said": said})
    return 0
