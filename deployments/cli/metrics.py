"""`vmborg metrics`: what `vmborg status` says, for Prometheus."""

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from deployments.cli.context import Context, pass_context
from infra.errors import StorageError


@click.command
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, in one step.")
@pass_context
def command(context: Context, *, output: Path | None) -> int:
    """Print the health of every VM and dump host as Prometheus reads it, for node_exporter's textfile collector."""
    config = context.config
    from tasks.metrics import render_metrics
    from tasks.status import read_status

    text = render_metrics(read_status(config), config.hypervisor.name, now=datetime.now(UTC))
    if output is not None:
        _write(output, text)
    context.output.document({"metrics": text, "file": output})
    if output is None:
        context.output.line(text.removesuffix("\n"))
    return 0


def _write(path: Path, text: str) -> None:
    """Nobody reads half of it: the collector may come at any moment, and takes only files that end in .prom."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StorageError(
            f"The metrics cannot be written to {path}.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Name a file in a folder that exists and has room.",
        ) from error
