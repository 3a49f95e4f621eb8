"""The systemd units of vmborg, filled in for this host."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from infra.config.models import Config
from infra.config.render import as_data

TEMPLATES = Path(__file__).with_name("systemd")
CREDENTIALS = Path("/etc/vmborg/credentials")
SERVER, WORKER = ("vmborg-server.service",), ("vmborg-recover.service", "vmborg-worker.service")
_BIN = Path(sys.prefix) / "bin"


def render_unit(name: str, config: Config, config_path: Path) -> str:
    """One unit. The worker and what recovers at boot get the credentials that the configuration names."""
    credentials = sorted(set(_credentials(as_data(config))))
    load = "\n".join(f"LoadCredential={each}:{CREDENTIALS / each}" for each in credentials)
    filled = (TEMPLATES / name).read_text(encoding="utf-8").replace("@CREDENTIALS@\n", f"{load}\n" if load else "")
    for word, value in (("@BIN@", str(_BIN)), ("@CONFIG@", str(config_path)), ("@HOST@", config.hypervisor.name)):
        filled = filled.replace(word, _escaped(value))
    return filled


def _escaped(value: str) -> str:
    """What systemd.syntax(7) and systemd.unit(5) would otherwise read as more than text."""
    return value.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"').replace("$", "$$")


def _credentials(data: Any) -> Iterator[str]:
    """The names of systemd credentials that references in the configuration hold."""
    if isinstance(data, Mapping):
        section = cast("Mapping[str, Any]", data)
        if list(section) == ["credential"]:
            yield str(section["credential"])
        for value in section.values():
            yield from _credentials(value)
