"""Without a Prefect server of one's own each command brings a temporary one: quiet, apart from others, and mortal."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.checks import sources
from tests.e2e.held import children, command, gone, hold_borg, let_go, parent
from tests.e2e.sources import MIB, Sources, disk
from tests.guests import Daemons, Guest

pytestmark = pytest.mark.e2e

SIZE = 96 * MIB


@pytest.fixture(scope="module")
def host(daemons: Daemons) -> Iterator[Sources]:
    """An installation that knows no Prefect server."""
    with Sources(daemons.uri, "") as sources:
        yield sources


@pytest.fixture(scope="module")
def guests(host: Sources) -> dict[str, Guest]:
    """Two running VMs, each with data on a raw disk."""
    made: dict[str, Guest] = {}
    for name in ("embedded-a", "embedded-b"):
        image = host.folder / f"{name}.raw"
        image.write_bytes(os.urandom(SIZE))
        made[name] = host.define(name, disk("vda", image, "raw")).start()
    return made


def test_two_commands_at_once_on_one_state_folder(host: Sources, guests: dict[str, Guest]) -> None:
    """Two backups of different VMs at the same time share the state folder and both end with a complete archive."""
    with ThreadPoolExecutor(len(guests)) as pool:
        outcomes = dict(zip(guests, pool.map(host.backup, guests), strict=True))
    for name, guest in guests.items():
        assert outcomes[name][name]["state"] == "complete"
        host.assert_on_bases(guest, {"vda": str(host.folder / f"{name}.raw")})
        assert len(host.archives(name)) == 1


def test_the_temporary_server_calls_nobody(host: Sources, guests: dict[str, Guest]) -> None:
    """Its log holds no line about telemetry, not even of one that failed."""
    host.backup("embedded-a")
    assert guests["embedded-a"].state() == "running"
    log = (host.site.root / "state" / "prefect" / "server.log").read_text()
    assert "telemetry" not in log.lower()
    assert "amplitude" not in log.lower()


def test_a_run_outlives_its_temporary_server(host: Sources, guests: dict[str, Guest]) -> None:
    """With its server killed in mid-run vmborg starts another, says so, and ends within a minute with the archive."""
    name = "embedded-b"
    image = host.folder / f"{name}.raw"
    before = {archive.name for archive in host.site.repository.archives()}
    with ThreadPoolExecutor(1) as pool:
        backup = pool.submit(host.site.vmborg, "backup", name)
        borg = hold_borg(host.site.repository_path, image)
        assert sources(guests[name]) != {"vda": str(image)}
        server = next(pid for pid in children(parent(borg)) if "uvicorn" in command(pid))
        os.kill(server, signal.SIGKILL)
        died = time.monotonic()
        let_go(borg)
        call = backup.result()
    assert time.monotonic() - died < 60
    host.assert_on_bases(guests[name], {"vda": str(image)})
    assert call.code == 0, call.stderr
    (made,) = {archive.name for archive in host.site.repository.archives()} - before
    assert made in call.stdout
    assert call.stderr.count("the temporary Prefect server died") == 1
    assert "Traceback" not in call.stderr
    assert gone(server)
