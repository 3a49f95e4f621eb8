"""kill -9 of a run at every step boundary and inside the window: `vmborg recover` puts the VM back."""

import signal
import sys
from pathlib import Path

import pytest

from infra.process import run
from tests.e2e.checks import assert_on_bases, sources
from tests.e2e.site import Site
from tests.guests import Guest

POINTS = [
    "after inspect",
    "after preflight",
    "before taking",
    "after taking",
    "before manifest",
    "after snapshot",
    "after create",
    "after pivot",
    "after verify",
]


@pytest.fixture(scope="module")
def survivor(module_guest: Guest) -> Guest:
    """One guest for all points: each of them must leave it as it was."""
    return module_guest


@pytest.mark.e2e
@pytest.mark.parametrize("point", POINTS)
def test_recover_puts_the_vm_back_after_death(point: str, survivor: Guest, module_site: Site, images_of: Path) -> None:
    """A run that is killed leaves at most a journal entry; recover ends on the bases and the guest goes on."""
    bases = sources(survivor)
    before = _good_archives(module_site)

    died = run(
        [
            sys.executable,
            "-m",
            "tests.e2e.killing",
            point,
            "--config",
            str(module_site.config),
            "backup",
            survivor.name,
        ],
        timeout=180,
        check=False,
    )

    assert died.returncode == -signal.SIGKILL, died.stderr
    recovered = module_site.vmborg("recover")
    assert recovered.code == 0, recovered.stderr
    assert_on_bases(module_site, survivor, bases, [images_of])
    survivor.wait_counter_moves()
    assert survivor.agent("guest-fsfreeze-status") == "thawed"
    finished = _good_archives(module_site) - before
    assert len(finished) == (1 if point == "after verify" else 0)


@pytest.mark.e2e
def test_next_backup_recovers_by_itself(survivor: Guest, module_site: Site, images_of: Path) -> None:
    """A backup after a death in create needs no human: it recovers, says so, and ends with a good archive."""
    bases = sources(survivor)
    command = ["--config", str(module_site.config), "backup", survivor.name]
    run([sys.executable, "-m", "tests.e2e.killing", "after snapshot", *command], timeout=180, check=False)
    assert sources(survivor) != bases

    result = module_site.backup(survivor.name)

    assert result["recovered"]
    assert_on_bases(module_site, survivor, bases, [images_of])


def _good_archives(site: Site) -> set[str]:
    return {archive["name"] for archive in site.ok("list")["archives"] if archive["state"] == "good"}
