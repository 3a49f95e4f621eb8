"""`vmborg config`: check, show and generate the configuration."""

import json
import os
from pathlib import Path

import click

from deployments.cli.context import Context, pass_context
from infra.config import render
from infra.config.load import locate
from infra.errors import ConfigError, UsageError


@click.group("config")
def command() -> None:
    """Check, show and generate the configuration."""


@command.command()
@pass_context
def validate(context: Context) -> None:
    """Check the configuration; every mistake is listed at once."""
    config = context.config
    path = locate(context.config_path)
    context.output.line(f"{path} is valid: {len(config.repositories)} repositories, VMs covered unless excluded.")
    context.output.document({"valid": True, "path": path})


@command.command()
@click.option("--vm", metavar="NAME", help="Show the policy that holds for this VM, and where each key comes from.")
@pass_context
def show(context: Context, vm: str | None) -> None:
    """Show the configuration with its defaults. Secrets appear as references only."""
    if vm is None:
        context.output.line(render.show(context.config).rstrip())
        context.output.document(render.as_data(context.config))
        return
    policy = render.as_data(context.config.policy(vm))
    origins = render.policy_origins(context.config, vm)
    excluded = context.config.is_excluded(vm)
    context.output.document({"vm": vm, "excluded_by": excluded, "policy": policy, "origins": origins})
    if excluded is not None:
        context.output.line(f"# not backed up: vms.exclude has {excluded!r}")
    context.output.line(render.with_origins(policy, origins).rstrip())


@command.command()
@pass_context
def schema(context: Context) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    context.output.line(json.dumps(render.schema(), indent=2, ensure_ascii=False))
    context.output.document(render.schema())


@command.command()
@click.option("--output", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write to this new file.")
@pass_context
def generate(context: Context, target: Path | None) -> None:
    """Print a commented configuration that is valid as it stands."""
    text = render.example()
    if target is None:
        context.output.line(text.rstrip())
        context.output.document({"yaml": text})
        return
    _write_new(target, text)
    context.output.line(f"Wrote {target}. Correct it, then `vmborg config validate`.")
    context.output.document({"path": target})


def _write_new(target: Path, text: str) -> None:
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError as error:
        raise UsageError(
            f"{target} exists already; it was not touched.",
            remedy="Name another file, or move this one away.",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"Cannot write {target}.",
            evidence=error.strerror or str(error),
            remedy="Create its folder, or run as root.",
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
