"""Metrics as Prometheus itself reads them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tasks.dumps.status import DumpStatus
from tasks.health import Finding, Health
from tasks.metrics import render_metrics
from tasks.status import Status, VmStatus
from tests.integration.vmborg import vmborg

NOW = datetime(2026, 1, 31, 2, tzinfo=UTC)
OBJECTIVE = timedelta(hours=26)


def vm(name: str, *, health: Health, time: datetime | None = None, excluded_by: str | None = None) -> VmStatus:
    """One VM's line."""
    return VmStatus(
        health=health,
        vm=name,
        uuid=f"uuid of {name}",
        state="running",
        text="",
        repository="main",
        time=time,
        objective=OBJECTIVE,
        uncovered=("vdb",),
        excluded_by=excluded_by,
    )


def samples(status: Status) -> dict[tuple[str, str], float]:
    """Each value by its metric and what it is about."""
    families = text_string_to_metric_families(render_metrics(status, "kvm1", now=NOW))
    found = [sample for family in families for sample in family.samples]
    assert {sample.labels["host"] for sample in found} == {"kvm1"}
    names = ("vm", "dumps", "subject")
    return {(each.name, "".join(each.labels.get(name, "") for name in names)): each.value for each in found}


def test_every_vm_has_its_age_objective_and_health() -> None:
    """A VM never backed up has no time, an excluded one no line; names are escaped."""
    awkward = 'a "b"\\\nc'
    dumps = (DumpStatus(Health.OK, "db01", "", OBJECTIVE, "main", time=NOW),)
    vms = (
        vm(awkward, health=Health.OK, time=NOW),
        vm("never", health=Health.CRITICAL),
        vm("left", health=Health.OK, excluded_by="left"),
    )
    found = samples(Status(Health.CRITICAL, vms, (Finding(Health.UNKNOWN, "libvirt", "connection", ""),), dumps))
    assert found == {
        ("vmborg_health", ""): 2,
        ("vmborg_vm_health", awkward): 0,
        ("vmborg_vm_health", "never"): 2,
        ("vmborg_vm_last_good_archive_timestamp_seconds", awkward): NOW.timestamp(),
        ("vmborg_vm_objective_seconds", awkward): OBJECTIVE.total_seconds(),
        ("vmborg_vm_objective_seconds", "never"): OBJECTIVE.total_seconds(),
        ("vmborg_vm_uncovered_disks", awkward): 1,
        ("vmborg_vm_uncovered_disks", "never"): 1,
        ("vmborg_dumps_health", "db01"): 0,
        ("vmborg_dumps_last_good_archive_timestamp_seconds", "db01"): NOW.timestamp(),
        ("vmborg_dumps_objective_seconds", "db01"): OBJECTIVE.total_seconds(),
        ("vmborg_problem", "libvirt"): 3,
        ("vmborg_metrics_timestamp_seconds", ""): NOW.timestamp(),
    }


def test_a_file_is_written_whole_and_alone(tmp_path: Path) -> None:
    """The command leaves one file, which Prometheus understands; where it cannot be written it says so."""
    config = tmp_path / "vmborg.yaml"
    repository = f"{{location: {tmp_path}/none, encryption: none}}"
    config.write_text(f"state_dir: {tmp_path}/state\nrepositories: {{main: {repository}}}\nhypervisor: {{uri: bad}}\n")
    target = tmp_path / "out" / "vmborg.prom"
    refused = vmborg("metrics", "--output", target, config=config)
    assert (refused.code, "cannot be written" in refused.stderr) == (1, True)
    target.parent.mkdir()
    assert vmborg("metrics", "--output", target, config=config).code == 0
    assert list(target.parent.iterdir()) == [target]
    assert "vmborg_problem" in {family.name for family in text_string_to_metric_families(target.read_text())}
