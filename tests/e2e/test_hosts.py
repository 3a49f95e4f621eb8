"""Three hypervisors, one Prefect server, one repository: they share, wait for each other, restart; one dies."""

import os
import signal
import ssl
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.schedules import IntervalSchedule

from infra.process import run, spawn
from tests.e2e.checks import assert_on_bases, sources
from tests.e2e.estate import Estate, KvmHost, archives, estate
from tests.e2e.held import borg_creating, gone, hold_borg, let_go
from tests.e2e.leaks import holding, readable_by_nobody
from tests.e2e.observing import repeating
from tests.guests import Boot, wait_for
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.e2e

EVERY_S, PERIOD_S = 15, 40
"""Coverage of the first host, and the period that the watchdog outside expects of it."""
PATIENCE_S = 240
"""Nine workers, flows and guests on one machine take their time."""


@pytest.fixture(scope="module")
def site(boot: Boot) -> Iterator[Estate]:
    """Three hosts, nothing backed up."""
    with estate(boot) as found:
        yield found


def check_back(host: KvmHost) -> None:
    """The guest is on its bases, and nothing is left beside them."""
    assert_on_bases(host.site, host.guest, host.bases, [host.images])


def backup(site: Estate, host: KvmHost) -> str:
    """Start a backup of the host's guest; the run's id."""
    return site.dashboard.begin(f"backup-vm/{host.name}", vm=host.vm)


def completed(site: Estate, run_id: str) -> str:
    """What a run says that completed."""
    return str(site.dashboard.wait_state(run_id, "COMPLETED", timeout=PATIENCE_S)["state"]["message"])


def watch(site: Estate, host: KvmHost) -> None:
    """Have coverage run often, and with it the ping."""
    with SyncPrefectClient(site.server.api, auth_string=f"vmborg:{site.known.api}") as client:
        there = client.read_deployment_by_name(f"coverage/{host.name}")
        every = IntervalSchedule(interval=timedelta(seconds=EVERY_S))
        client.create_deployment_schedules(there.id, [(every, True)])


def test_all_back_up_and_one_writes_at_a_time(site: Estate) -> None:
    """Three fleets at once: while one borg is held the others wait untouched; then all complete, told in one table."""
    with repeating(site.look):
        fleets = [site.dashboard.begin(f"backup-fleet/{host.name}") for host in site.hosts]
        borg = wait_for(lambda: borg_creating(site.repository), timeout=PATIENCE_S, what="borg create", interval=0.01)
        os.kill(borg, signal.SIGSTOP)
        for host in site.hosts:
            waiting = site.dashboard.wait_run(host.vm)
            wait_for(lambda of=waiting: site.dashboard.tasks(of), timeout=PATIENCE_S, what=f"{host.name} at work")
        assert len([host for host in site.hosts if sources(host.guest) != host.bases]) == 1
        let_go(borg)
        assert [completed(site, fleet) for fleet in fleets] == ["1 of 1 VMs complete"] * 3
    assert site.most_writers == 1
    table = {(each["vm"], each["hypervisor"], each["consistency"]) for each in archives(site.hosts[1])}
    assert table == {(host.vm, host.name, "agent") for host in site.hosts}
    # Confined as their unit says, the workers may do what it takes to read only what changed.
    assert {each.comment["layout"] for each in site.hosts[0].site.repository.archives()} == {"segments"}
    for host in site.hosts:
        check_back(host)
        # No host can ask the server how much room it has; borg told each how much is there.
        (page,) = site.dashboard.ask("artifacts/latest", artifacts={"key": {"any_": [f"repository-{host.name}-main"]}})
        assert "**Its size:** " in page["data"]
        assert "**Capacity:** 100.0 GiB, 0 % used" in page["data"]


def test_only_the_maintainer_prunes(site: Estate) -> None:
    """One repository, one host that deletes: the others have no deployment for it."""
    found = {each["name"] for each in site.dashboard.ask("deployments", flows={"name": {"any_": ["prune"]}})}
    assert found == {site.hosts[0].name}


def test_restarts_lose_no_backup(site: Estate, tmp_path: Path) -> None:
    """In mid-backup the server is restarted and the worker, drained first; the backup completes, the next one comes."""
    host = site.hosts[0]
    before = len(archives(host))
    first = backup(site, host)
    borg = hold_borg(site.repository, host.image, target="vda", timeout=PATIENCE_S)
    site.server.stop()
    site.server.start()
    log, drain = tmp_path / "drain.log", [str(VMBORG), "--config", str(host.site.config), "drain"]
    env = {**host.site.env, "PREFECT_API_URL": host.site.api}
    with log.open("wb") as told, spawn(drain, env=env, stdout=told, stderr=told) as draining:
        wait_for(
            lambda: f"waiting for {host.vm}" in log.read_text(), timeout=PATIENCE_S, what="drain to wait", interval=0.3
        )
        second = backup(site, host)
        assert draining.poll() is None
        let_go(borg)
        assert draining.wait(PATIENCE_S) == 0, log.read_text()
    assert site.dashboard.run(first)["state_type"] == "COMPLETED"
    host.worker.stop()
    assert site.dashboard.run(second)["state_type"] == "SCHEDULED"
    assert host.site.ok("drain", "--resume") == {"pool": host.name, "paused": False}
    host.worker.ensure()
    completed(site, second)
    assert len(archives(host)) == before + 2
    check_back(host)


def test_a_host_that_dies_disturbs_nobody_and_is_told(site: Estate) -> None:
    """Killed with all that runs on it while it writes: the others back up, its run and its silence are told."""
    *others, dying = site.hosts
    watch(site, others[0])
    completed(site, site.dashboard.begin(f"coverage/{dying.name}"))
    backup(site, dying)
    borg = hold_borg(site.repository, dying.image, target="vda", timeout=PATIENCE_S)
    assert site.receiver.count(f"{dying.name} is silent") == 0
    dying.libvirtd.die()
    wait_for(lambda: gone(borg), timeout=10, what="the end of borg")
    for started in [backup(site, host) for host in others]:
        completed(site, started)
    for host in others:
        check_back(host)
    crashed = site.receiver.wait(f"backup-vm {dying.vm} Crashed", path=site.hook, timeout=PATIENCE_S)
    assert "No heartbeat" in str(crashed)
    assert crashed.token == f"Bearer {site.known.token}"
    site.receiver.wait(f"{dying.name} is silent", path=site.hook, timeout=PATIENCE_S)
    assert [each for each in archives(others[0]) if each["vm"] == dying.vm and each["finished"]]


def test_the_server_lets_nobody_in(site: Estate) -> None:
    """Loopback only; a password for every call; no change without a token; no word in clear or to another's proxy."""
    assert {each.laddr.ip for each in psutil.Process(site.server.pid).net_connections() if each.status == "LISTEN"} == {
        "127.0.0.1"
    }
    ca, known = ssl.create_default_context(cafile=site.proxy.certificate), httpx.BasicAuth("vmborg", site.known.api)
    for api in (site.server.api, site.proxy.api):
        with httpx.Client(verify=ca, timeout=30) as client:
            assert client.get(f"{api}/admin/version").status_code == 401
            assert client.get(f"{api}/admin/version", auth=("vmborg", "guessed")).status_code == 401
            assert client.get(f"{api}/admin/version", auth=known).status_code == 200
            assert client.post(f"{api}/flow_runs/filter", auth=known, json={}).status_code == 403  # no CSRF token
    clear = site.proxy.api.replace("https://", "http://")
    assert httpx.get(f"{clear}/health", timeout=30).status_code == 400
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{site.proxy.api}/health", timeout=30)
    call = site.hosts[0].site.vmborg("--json", "deploy", env={"PREFECT_API_AUTH_STRING": ""})
    assert call.code == 1
    assert "PREFECT_API_AUTH_STRING" in call.document["error"]["remedy"]


def test_nobody_outside_is_called(site: Estate) -> None:
    """The server was given a proxy for the world outside (the receiver), and asked it for nothing."""
    assert site.receiver.got
    assert {each.path for each in site.receiver.got} <= {site.hook, site.ping}


def test_no_secret_is_seen(site: Estate) -> None:
    """None is in the database, a log, a file that others may read, a command line, or any file but its own."""
    keys = {key.name: key.read_text(encoding="utf-8").splitlines()[1] for key in site.ssh.private_keys()}
    keys["tls"] = site.proxy.key.read_text(encoding="utf-8").splitlines()[-3]
    known = {**asdict(site.known), **keys}
    dump = site.root / "database.sql"
    where = ["-h", str(site.database.root), "-p", str(site.database.port), "-f", str(dump), "prefect"]
    run(["pg_dump", *where], timeout=120)
    kept = {host.site.root / name for host in site.hosts for name in ("passphrase", "token", "hook", "ping")}
    kept |= {site.proxy.key, *site.ssh.private_keys()}
    everything = [path for path in site.root.rglob("*") if path.is_file() and path not in kept]
    assert {"database.sql", "server.log", "worker.log", "access.log", "sshd.log"} <= {path.name for path in everything}
    assert site.hosts[0].vm in dump.read_text(encoding="utf-8")
    assert holding(known, everything) == {}
    readable = readable_by_nobody(site.began)
    assert readable
    assert holding(known, readable) == {}
    assert any("borg" in line and " create " in line for line in site.said)
    assert not [line for line in site.said for secret in known.values() if secret in line]


def test_a_dead_server_is_noticed_outside(site: Estate) -> None:
    """The watchdog is called again and again; once the server is killed it says that a call is overdue."""
    before = len(site.receiver.pinged(site.ping))
    wait_for(lambda: len(site.receiver.pinged(site.ping)) > before + 1, timeout=PATIENCE_S, what="pings")
    assert not site.receiver.overdue(PERIOD_S, site.ping)
    site.server.kill()
    wait_for(lambda: site.receiver.overdue(PERIOD_S, site.ping), timeout=PERIOD_S + 60, what="overdue", interval=0.3)
