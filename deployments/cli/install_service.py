"""`vmborg install-service`: write the systemd units of this host."""

from pathlib import Path

import click

from deployments.cli.context import Context, pass_context
from infra.errors import StorageError, UsageError

_ENVIRONMENT = """\
# Read by vmborg's units; only root may read it. A password of the server belongs here:
# PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD and PREFECT_API_AUTH_STRING=NAME:PASSWORD
PREFECT_API_URL=http://127.0.0.1:4200/api
"""
_SERVER_ENVIRONMENT = """\
# Read by vmborg-server.service alone; only root may read it. The address of a database has its password in it:
# PREFECT_API_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect:PASSWORD@127.0.0.1:5432/prefect
"""


@click.command
@click.option("--worker", is_flag=True, help="The worker of this hypervisor, and recover at boot.")
@click.option("--server", is_flag=True, help="The Prefect server; on one host only.")
@click.option("--root", type=click.Path(path_type=Path), default=Path("/"), metavar="DIR", help="Below this folder.")
@pass_context
def command(context: Context, *, worker: bool, server: bool, root: Path) -> int:
    """Write the units to /etc/systemd/system and, if there is none, /etc/vmborg/prefect.env; say what to start.

    Nothing is started. Call it again after an update: units are replaced, environment files are not.
    """
    from deployments.units import SERVER, WORKER, render_unit
    from infra.config.load import locate

    config = context.config
    if not (worker or server):
        raise UsageError("Say --worker, --server or both.", remedy="See `vmborg install-service --help`.")
    names = [*(SERVER if server else ()), *(WORKER if worker else ())]
    path = locate(context.config_path).absolute()
    units = {root / "etc/systemd/system" / name: render_unit(name, config, path) for name in names}
    environment = root / "etc/vmborg/prefect.env"
    private = {environment: _ENVIRONMENT} | ({root / "etc/vmborg/server.env": _SERVER_ENVIRONMENT} if server else {})
    try:
        for unit, text in units.items():
            _write(unit, text, mode=0o644)
        for file, text in private.items():
            if not file.exists():
                _write(file, text, mode=0o600)
    except OSError as error:
        raise StorageError(
            "The units cannot be written.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Run vmborg as root, or name another folder with --root.",
        ) from error
    context.output.document({"written": list(units), "environment": environment})
    for unit in units:
        context.output.line(f"written: {unit}")
    context.output.line(f"Look at {environment}, then:")
    context.output.line(f"systemctl daemon-reload && systemctl enable --now {' '.join(names)}")
    return 0


def _write(path: Path, text: str, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=mode)
    new.chmod(mode)
    new.write_text(text, encoding="utf-8")
    new.replace(path)
