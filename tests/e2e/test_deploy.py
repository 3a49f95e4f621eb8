"""`vmborg deploy` against a real Prefect server: what it makes, changes, removes and leaves alone."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from deployments.registry.changes import Changes
from deployments.registry.deploy import deploy
from infra.config.load import load
from infra.process import run
from tasks.limits import limit_name
from tests.e2e.dashboard import Dashboard, Row
from tests.e2e.prefect_server import PREFECT
from tests.e2e.worker import CHECKOUT
from tests.integration.vmborg import Call, vmborg

pytestmark = pytest.mark.e2e

ALWAYS = {"backup-vm", "backup-fleet", "check", "reconcile", "coverage", "drill"}
DUMPS = {"hosts": {"db01": {"address": "db01", "sources": [{"kind": "files", "paths": ["/etc"]}]}}}
CLOUD = {"offsite": {"remote": "s3:bucket/vmborg", "config": "/etc/vmborg/rclone.conf"}}


class Host:
    """One host's configuration, and its deployments on the server."""

    def __init__(self, root: Path, api: str, name: str) -> None:
        self.name = name
        self.api = api
        self.root = root
        self.dashboard = Dashboard(api)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / f"{self.name}.yaml"

    def configure(self, **settings: Any) -> None:
        """Write a configuration with these further keys."""
        base = {
            "state_dir": str(self.root / "state"),
            "hypervisor": {"name": self.name, "uri": "test:///default"},
            "repositories": {"main": {"location": str(self.root / "repository"), "encryption": "none"}},
        }
        self.config.write_text(json.dumps({**base, **settings}), encoding="utf-8")

    def call(self, *options: str) -> Call:
        """`vmborg deploy --json`."""
        return vmborg("--json", "deploy", *options, config=self.config, env={"PREFECT_API_URL": self.api})

    def deploy(self, *, dry_run: bool = False, **settings: Any) -> dict[str, set[str]]:
        """What the command does, in this process: it saves the seconds of importing Prefect."""
        self.configure(**settings)
        changes = Changes(dry_run=dry_run)
        with self.client() as client:
            deploy(client, load(self.config), self.config, changes)
        return {kind: set(names) for kind, names in changes.data().items()}

    def client(self) -> SyncPrefectClient:
        """Prefect's own client."""
        return SyncPrefectClient(self.api)

    def keys(self, *flows: str) -> set[str]:
        """Names of deployments of this host."""
        return {f"{flow}/{self.name}" for flow in flows}

    def there(self) -> dict[str, Row]:
        """What the server has of this host, by its flow."""
        found = self.dashboard.ask("deployments", deployments={"name": {"any_": [self.name]}})
        flows = {flow["id"]: flow["name"] for flow in self.dashboard.ask("flows")}
        return {flows[each["flow_id"]]: each for each in found}

    def withdraw(self) -> None:
        """Remove its deployments."""
        for row in self.there().values():
            self.dashboard.delete(f"deployments/{row['id']}")

    def alerts(self) -> dict[str, Any]:
        """The key `alerts` with a receiver."""
        address = self.root / "address"
        address.touch(mode=0o600)
        address.write_text("http://127.0.0.1:9/", encoding="ascii")
        return {"receivers": {"ops": {"url": {"file": str(address)}}}}


@pytest.fixture
def host(prefect_server: str, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A host that the server does not know yet; everything of it is gone afterwards."""
    name = request.node.name.replace("_", "-")[5:40]
    host = Host(tmp_path, prefect_server, name)
    yield host
    host.withdraw()
    for limit in host.dashboard.ask("v2/concurrency_limits"):
        if limit["name"].startswith(f"vmborg-repository:{name}:"):
            host.dashboard.delete(f"v2/concurrency_limits/{limit['id']}")
    for pool in host.dashboard.ask("work_pools"):
        if pool["name"].startswith(name):
            host.dashboard.delete(f"work_pools/{pool['name']}")


def test_the_second_call_changes_nothing(host: Host) -> None:
    """The first makes pool, limit and deployments; the second finds all of it as it should be."""
    host.configure()
    first = host.call()
    assert first.code == 0, first.stderr
    created = first.document["created"]
    assert {*host.keys(*ALWAYS, "prune"), f"work pool {host.name}"} <= set(created)
    before = host.there()
    second = host.call()
    assert second.document == {"created": [], "updated": [], "removed": [], "unchanged": created}
    assert host.there() == before


def test_what_is_deployed_runs_where_the_disks_are(host: Host) -> None:
    """Each is in the pool of its host, starts in the checkout, takes this configuration and has a limit."""
    host.deploy(vms={"parallel": 3})
    for flow, row in host.there().items():
        assert row["work_pool_name"] == host.name
        assert row["parameters"] == {"config": str(host.root / f"{host.name}.yaml")}
        assert row["job_variables"]["stream_output"] is False
        assert row["global_concurrency_limit"]["limit"] == (3 if flow == "backup-vm" else 1)
        assert row["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        directory = row["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]["directory"]
        assert (Path(directory) / "flows" / "backup_vm.py").is_file()


def test_the_file_is_one_that_prefect_takes(host: Host) -> None:
    """`prefect deploy --all` makes a deployment of each entry, in a pool that exists."""
    host.deploy()
    env = {"PREFECT_API_URL": host.api, "VMBORG_POOL": host.name, "VMBORG_HOME": str(CHECKOUT)}
    run([str(PREFECT), "--no-prompt", "deploy", "--all"], timeout=120, env=env, cwd=str(CHECKOUT))
    assert set(host.there()) == {*ALWAYS, "pull-dumps", "cloud-sync", "prune"}


def test_a_dry_run_tells_the_same_and_changes_nothing(host: Host) -> None:
    """What it tells is what the call without it does."""
    told = host.deploy(dry_run=True)
    assert host.there() == {}
    assert host.deploy() == told


def test_what_is_not_named_any_more_is_removed(host: Host) -> None:
    """Without dump hosts there is no pull-dumps, without copies no cloud-sync; the neighbour's stay."""
    neighbour = Host(host.root, host.api, f"{host.name}-2")
    neighbour.deploy(dumps=DUMPS)
    optional = host.keys("pull-dumps", "cloud-sync")
    try:
        assert optional <= host.deploy(dumps=DUMPS, cloud=CLOUD)["created"]
        then = host.deploy()
        assert then["removed"] == optional
        assert set(host.there()) == {*ALWAYS, "prune"}
        assert "pull-dumps" in neighbour.there()
    finally:
        neighbour.withdraw()


def test_the_limit_of_a_repository_goes_with_it(host: Host) -> None:
    """That of a local one, which no other host can name; that of a remote one may be another host's too."""
    places = {"main": host.root / "repository", "second": host.root / "second", "far": f"ssh://borg@{host.name}/srv"}
    repositories = {name: {"location": str(place), "encryption": "none"} for name, place in places.items()}
    host.configure(repositories=repositories)
    local, remote = (limit_name(load(host.config), name) for name in ("second", "far"))
    try:
        created = host.deploy(repositories=repositories)["created"]
        assert {f"limit {local}", f"limit {remote}"} <= created
        removed = host.deploy()["removed"]
        assert (f"limit {local}" in removed, f"limit {remote}" in removed) == (True, False)
    finally:
        with host.client() as client:
            client.delete_global_concurrency_limit_by_name(remote)


def test_only_the_maintainer_prunes_and_copies(host: Host) -> None:
    """A host that does not maintain the repository gets neither prune nor cloud-sync."""
    remote = {"location": "ssh://borg@backup/srv/main", "encryption": "none", "maintainer": "another"}
    told = host.deploy(repositories={"main": remote}, cloud=CLOUD)
    assert set(host.there()) == ALWAYS
    assert host.keys("prune", "cloud-sync").isdisjoint(told["created"])


def test_schedules_are_those_of_the_configuration(host: Host) -> None:
    """A VM's own schedule comes, changes and goes with its key; never switches one off; others are untouched."""
    host.deploy()
    own = {"vms": {"Web 1_x": "H 3 * * *"}, "prune": "never", "timezone": "Europe/Berlin"}
    assert host.deploy(schedules={"vms": own["vms"]})["updated"] == host.keys("backup-vm")
    host.deploy(schedules=own)
    (schedule,) = host.there()["backup-vm"]["schedules"]
    assert schedule["parameters"] == {"vm": "Web 1_x"}
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert schedule["schedule"]["cron"].endswith(" 3 * * *")
    assert host.there()["prune"]["schedules"] == []
    host.deploy()
    assert host.there()["backup-vm"]["schedules"] == []


def test_what_somebody_changed_is_put_right(host: Host) -> None:
    """A schedule that was switched off in the dashboard is switched on again, and only that deployment is written."""
    host.deploy()
    with host.client() as client:
        row = client.read_deployment_by_name(f"prune/{host.name}")
        client.update_deployment_schedule(row.id, row.schedules[0].id, active=False)
    assert host.deploy()["updated"] == host.keys("prune")
    assert host.there()["prune"]["schedules"][0]["active"]


def test_alerts_are_not_made_twice_where_there_are_many(host: Host) -> None:
    """The server tells 200 automations in one answer; forty hosts have as many, and others than vmborg have some."""
    with host.client() as client:
        others = [client.create_automation(_somebodys(f"a {host.name} {number}")) for number in range(200)]
        try:
            host.configure(alerts=host.alerts())
            created = host.call().document["created"]
            assert sum(each.startswith("automation ") for each in created) == 5
            assert host.call().document["unchanged"] == created
            assert sum(each.startswith("automation ") for each in host.deploy()["removed"]) == 4
        finally:
            for other in others:
                client.delete_automation(other)


def _somebodys(name: str) -> AutomationCore:
    trigger = EventTrigger(expect={f"nothing.{name}"}, posture=Posture.Reactive)
    return AutomationCore(name=name, trigger=trigger, actions=[DoNothing()])


def test_hosts_may_be_deployed_at_once_for_the_first_time(host: Host) -> None:
    """Three that back up into one repository: each makes its limit, or finds that it is there."""
    hosts = [Host(host.root, host.api, f"{host.name}-{number}") for number in range(3)]
    shared = {"main": {"location": f"ssh://borg@{host.name}.example/./main", "encryption": "none"}}
    for each in hosts:
        each.configure(repositories=shared, alerts=host.alerts())
    limit = limit_name(load(hosts[0].config), "main")
    try:
        with ThreadPoolExecutor() as threads:
            first = list(threads.map(Host.call, hosts))
        assert [call.code for call in first] == [0, 0, 0], "\n".join(call.stderr for call in first)
        second = [each.call().document for each in hosts]
        assert [(then["created"], then["updated"]) for then in second] == [([], [])] * 3
        limits = [row["name"] for row in host.dashboard.ask("v2/concurrency_limits")]
        assert limits.count(limit) == 1
    finally:
        for each in hosts:
            each.withdraw()
        with host.client() as client:
            client.delete_global_concurrency_limit_by_name(limit)


def test_without_a_server_nothing_is_deployed(host: Host) -> None:
    """A temporary server would forget it: the call is refused and says what to do."""
    host.configure()
    call = vmborg("--json", "deploy", config=host.config)
    assert call.code == 2
    assert "PREFECT_API_URL" in call.document["error"]["remedy"]
