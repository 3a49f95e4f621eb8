"""What our systemd units say, for tests that have no systemd."""

import re

from tests.e2e.worker import CHECKOUT

UNITS = CHECKOUT / "deployments/systemd"


def unit_environment(name: str) -> dict[str, str]:
    """What a unit of ours sets for its program, but for where its files are."""
    lines = (UNITS / name).read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if line.startswith("Environment=") for word in line.partition("=")[2].split()]
    return {
        key: value for key, _, value in (word.partition("=") for word in words) if key.startswith(("PREFECT", "DO"))
    }


def confined() -> list[str]:
    """The command that leaves to root what the worker's unit leaves to it."""
    unit = (UNITS / "vmborg-worker.service").read_text(encoding="utf-8")
    found = re.search(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    assert found
    left = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in found.group(1).split())])
    return ["setpriv", "--no-new-privs", f"--bounding-set={left}"]
