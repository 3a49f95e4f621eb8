"""kill -9 of a run at every step boundary and inside the window: `vmborg recover` puts the VM back."""

import signal
import sys
from pathlib import Path

import pytest

from infra.process import run
from tests.e2e.checks import assert_on_bases, sources
from tests.e2e.site import Site, make_site
from tests.guests import Daemons, Guest

pytestmark = pytest.mark.e2e

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
def site(daemons: Daemons, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An installation that uses a Prefect server: a dozen runs start faster."""
    return make_site(tmp_path_factory.mktemp("site"), daemons.uri, api=prefect_server)


def die_at(point: str, site: Site, guest: Guest) -> None:
    """Run a backup that is killed at this point."""
    arguments = ["--config", str(site.config), "backup", guest.name]
    command = [sys.executable, "-m", "tests.e2e.killing", point, *arguments]
    died = run(command, timeout=180, check=False, env={"PREFECT_API_URL": site.api})
    assert died.returncode == -signal.SIGKILL, died.stderr


@pytest.mark.parametrize("point", POINTS)
def test_recover_puts_the_vm_back_after_death(point: str, guest: Guest, site: Site, guest_images: Path) -> None:
    """A run that is killed leaves at most a journal entry; recover ends on the bases and the guest goes on."""
    bases = sources(guest)
    before = good_archives(site)

    die_at(point, site, guest)

    recovered = site.vmborg("recover")
    assert recovered.code == 0, recovered.stderr
    assert_on_bases(site, guest, bases, [guest_images])
    guest.wait_counter_moves()
    assert guest.agent("guest-fsfreeze-status") == "thawed"
    finished = good_archives(site) - before
    assert len(finished) == (1 if point == "after verify" else 0)


def test_the_next_backup_recovers_by_itself(guest: Guest, site: Site, guest_images: Path) -> None:
    """A backup after a death in the window needs nobody: it recovers, says so, and ends with a good archive."""
    bases = sources(guest)
    die_at("after snapshot", site, guest)
    assert sources(guest) != bases
    status = site.vmborg("status")
    assert status.code == 2
    assert "vmborg recover" in status.stdout

    result = site.backup(guest.name)

    assert result["recovered"]
    assert_on_bases(site, guest, bases, [guest_images])
    assert site.vmborg("status").code in {0, 2}  # other domains of this host may have no archive


def test_no_unfinished_archive_is_left_by_the_dead(guest: Guest, site: Site) -> None:
    """A run that dies between create and verify leaves an unfinished archive; recover removes it."""
    die_at("after pivot", site, guest)
    assert unfinished_archives(site)
    assert site.vmborg("recover").code == 0

    site.backup(guest.name)

    assert not unfinished_archives(site)


def good_archives(site: Site) -> set[str]:
    """Names of archives that are finished."""
    return {archive.name for archive in site.repository.archives() if not archive.name.endswith(".unfinished")}


def unfinished_archives(site: Site) -> set[str]:
    """Names of archives whose run never verified them."""
    return {archive.name for archive in site.repository.archives() if archive.name.endswith(".unfinished")}
