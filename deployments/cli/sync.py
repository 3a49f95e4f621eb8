"""`vmborg sync`: run the flow cloud-sync; fetch a copy."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.flowrun import calling
from deployments.cli.output import error_data, exit_code_of
from deployments.cli.words import duration, size
from infra.errors import UsageError, VmborgError

if TYPE_CHECKING:
    from tasks.cloud.copy import Copied, Teller

_RESTORE = "restore"


@click.command
@click.argument("words", nargs=-1, metavar="[NAME | restore NAME]")
@click.option("--dry-run", is_flag=True, help="Tell what would be copied and deleted, and change nothing.")
@click.option("--start-over", is_flag=True, help="Make a new copy where the one that was made before is gone.")
@click.option("--allow-shrink", is_flag=True, help="Copy although more is gone than prunes on this host explain.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="restore: a new or empty folder.")
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]),
    metavar="DATE",
    help="restore: the copy as it was then (UTC); the newest if left out.",
)
@pass_context
def command(context: Context, *, words: tuple[str, ...], to: Path | None, at: datetime | None, **how: bool) -> int:
    """Copy repositories to their clouds, or only NAME; or fetch a copy: sync restore NAME --to DIR.

    Nothing is copied that is empty, not mounted, smaller than prune explains, damaged, or another repository. What is
    fetched is checked by borg. Exit code 1 if a copy was refused or is not whole.
    """
    if words[:1] == (_RESTORE,):
        return _restore(context, words[1:], to=to, at=at, how=how)
    if len(words) > 1 or to is not None or at is not None:
        raise UsageError(
            "--to and --at belong to `vmborg sync restore`, and one call copies one NAME or all.",
            remedy="See `vmborg sync --help`.",
        )
    return _copy(context, words[0] if words else None, how)


def _copy(context: Context, name: str | None, how: dict[str, bool]) -> int:
    from tasks.cloud.job import cloud_names

    cloud_names(context.config, name)  # a wrong name needs no server to be told
    with calling(context, "cloud_sync") as sync, context.output.progress("copying") as bar:
        from tasks.progress import Progress, listening

        def show(progress: Progress) -> None:
            bar.update(progress.done, total=progress.total or None, text=f"{progress.source}: {progress.path}")

        with listening(show):
            done: dict[str, Copied | VmborgError] = sync(name, **how)
    _print(context, done, dry_run=how["dry_run"])
    return exit_code_of([each for each in done.values() if isinstance(each, VmborgError)])


def _print(context: Context, done: "dict[str, Copied | VmborgError]", *, dry_run: bool) -> None:
    rows: list[dict[str, Any]] = []
    for name, each in done.items():
        if isinstance(each, VmborgError):
            rows.append({"name": name, "result": None, "error": error_data(each)})
            context.output.error_of(name, each)
            continue
        rows.append({"name": name, "result": each, "error": None})
        verb = "would be copied" if dry_run else "copied"
        goes = f", {each.deleted} segments to the history" if each.deleted else ""
        proof = f"; proven by {each.proof}" if each.proof else ""
        context.output.line(f"{name}: {each.files} files, {size(each.size)} {verb} to {each.remote}{goes}{proof}.")
        for note in each.notes:
            context.output.line(f"  {note}")
    context.output.document({"dry_run": dry_run, "copies": rows})


def _restore(
    context: Context, words: tuple[str, ...], *, to: Path | None, at: datetime | None, how: dict[str, bool]
) -> int:
    from tasks.cloud.fetch import fetch_copy
    from tasks.cloud.job import cloud_names

    if len(words) != 1 or to is None or any(how.values()):
        raise UsageError(
            "sync restore needs NAME and --to DIR, and takes --at DATE.", remedy="See `vmborg sync --help`."
        )
    (name,) = cloud_names(context.config, words[0])
    moment = _end_of(at) if at else None
    with _telling(context, name) as teller:
        done = fetch_copy(context.config, name, to.absolute(), at=moment, now=datetime.now(UTC), teller=teller)
    context.output.document({"fetched": done})
    context.output.line(
        f"{name}: the copy of {done.stamp}, {done.files} files, {size(done.size)}, is in {done.directory}."
    )
    context.output.line(f"borg has checked it: {done.archives} archives.")
    context.output.line(f"To restore VMs from it, name {done.directory} as the `location` of {done.repository}.")
    return 0


def _end_of(at: datetime) -> datetime:
    """A day without a time means its end."""
    whole_day = (at.hour, at.minute, at.second) == (0, 0, 0)
    return at.replace(tzinfo=UTC) + (timedelta(days=1, seconds=-1) if whole_day else timedelta())


@contextmanager
def _telling(context: Context, name: str) -> "Generator[Teller]":
    from infra.rclone.command import OnTransfer, Transfer

    with context.output.progress(f"{name}: fetching") as bar:

        def teller(phase: str) -> OnTransfer:
            def tell(transfer: Transfer) -> None:
                left = f", {duration(timedelta(seconds=transfer.eta))} left" if transfer.eta is not None else ""
                bar.update(transfer.done, total=transfer.total or None, text=f"{name}: {phase}{left}")

            return tell

        yield teller
