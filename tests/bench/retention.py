"""`vmborg prune --dry-run` of two years of twenty VMs: python -m tests.bench retention.

The command is run as a person runs it, Prefect's start and the table of 14,600 rows included. What it says of each
archive is compared with `borg prune --dry-run --list`; that comparison is not counted.
"""

import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.borg.names import archive_glob
from infra.retention.rules import KeepRules
from tests.bench.figures import Figure, absolute
from tests.integration.borg_prune import borg_says, repository_in, two_years
from tests.integration.vmborg import vmborg

RULES = KeepRules(daily=7, weekly=4, monthly=6)
ROUNDS = 3


def main() -> int:
    """Measure, compare and print; exit code 1 when the bound is missed or a plan is not borg's."""
    with tempfile.TemporaryDirectory(prefix="vmborg-bench-retention-", dir="/var/tmp") as name:
        root, now = Path(name), datetime.now(UTC).replace(microsecond=0)
        repository = repository_in(root)
        _say("making 14,600 archives")
        uuids = two_years(repository, now)
        config = _configure(root, repository.location)
        slowest, said = 0.0, dict[str, dict[str, str]]()
        for number in range(ROUNDS):
            _say(f"vmborg prune --dry-run ({number + 1} of {ROUNDS})")
            seconds, said = _prune(config)
            slowest = max(slowest, seconds)
        _say("borg prune --dry-run --list, once for each VM")
        globs = {vm: archive_glob(uuid, vm) for vm, uuid in uuids.items()}
        other = [vm for vm, glob in globs.items() if said.get(vm) != borg_says(repository, glob, RULES)]
    figures = [
        absolute("prune --dry-run of 14,600 archives, slowest", slowest, bound=30.0, unit="s"),
        absolute("VMs of twenty whose plan is not borg's", len(other), bound=0, unit="VMs"),
    ]
    for figure in figures:
        _print(figure)
    return 0 if all(figure.kept for figure in figures) else 1


def _configure(root: Path, location: str) -> Path:
    """A host whose libvirt does not answer: no VM is gone then."""
    settings = {
        "state_dir": str(root / "vmborg"),
        "hypervisor": {"name": "kvm1", "uri": "qemu+unix:///system?socket=/nonexistent"},
        "repositories": {"main": {"location": location, "encryption": "none"}},
        "vms": {"defaults": {"retention": {"daily": RULES.daily, "weekly": RULES.weekly, "monthly": RULES.monthly}}},
    }
    path = root / "vmborg.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


def _prune(config: Path) -> tuple[float, dict[str, dict[str, str]]]:
    """Seconds of the command; the rule of each archive by the name of its VM."""
    begun = time.monotonic()
    call = vmborg("--json", "prune", "--dry-run", config=config, timeout=600)
    seconds = time.monotonic() - begun
    if call.code != 0:
        raise RuntimeError(call.stderr)
    rows: list[dict[str, Any]] = call.document["repositories"][0]["archives"]
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["source"], {})[row["archive"]] = row["rule"]
    return seconds, found


def _print(figure: Figure) -> None:
    verdict = "kept" if figure.kept else "MISSED"
    print(f"{figure.name}: {figure.value:.1f} {figure.unit} (at most {figure.bound:g}): {verdict}")


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
