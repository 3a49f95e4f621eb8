"""A backup with far more new data than usual is told wherever somebody may look."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from infra.config.load import load
from tasks.growth import record
from tests.e2e.dashboard import Dashboard
from tests.e2e.sources import MIB, Sources, disk

pytestmark = pytest.mark.e2e

VM = "grown"


def test_unexpected_growth_is_told_everywhere(host: Sources) -> None:
    """The run's log, result and artifact, the command, `status` and `check` name it, until a backup is as usual."""
    settings = json.loads(host.site.config.read_text(encoding="utf-8"))
    settings["check"] = {"growth_factor": 2, "growth_floor": "1MiB", "samples": 0}
    host.site.config.write_text(json.dumps(settings), encoding="utf-8")
    image = host.folder / "grown.raw"
    image.write_bytes(os.urandom(8 * MIB))
    guest = host.define(VM, disk("vda", image, "raw"))
    config, now = load(host.site.config), datetime.now(UTC)
    for day in (3, 2, 1):
        when = now - timedelta(days=day)
        record(config.state, config.check, source=guest.uuid, name=VM, archive=str(day), stored=MIB, when=when)

    call = host.site.vmborg("--json", "backup", VM)
    assert call.code == 0
    outcome = call.document["backups"][0]
    said = outcome["result"]["unexpected"]
    assert (outcome["state"], said.startswith("8."), "1.0 MiB are usual" in said) == ("complete", True, True), said
    assert f"{VM}: unexpected growth: {said}" in call.stderr

    dashboard = Dashboard(host.api)
    run = dashboard.last_run(VM)
    artifact = dashboard.artifact(run, "table")
    assert artifact
    assert f"**Unexpected growth:** {said}" in artifact["description"]
    warnings = [line["message"] for line in dashboard.logs(run) if line["level"] == 30]
    assert f"unexpected growth of {VM}: {said}" in warnings

    health, text, remedy = status(host)
    assert (health, text) == ("warning", f"unexpected growth: {said}")
    assert f"vmborg hold {outcome['result']['archive']}" in remedy
    assert host.site.ok("check")["unexpected_growth"] == {VM: said}

    host.backup(VM)
    assert status(host)[:2] == ("ok", "backed up")
    assert host.site.ok("check")["unexpected_growth"] == {}


def status(host: Sources) -> tuple[str, str, str]:
    """What `status` says of the VM: level, text, remedy."""
    document = host.site.vmborg("--json", "status").document
    line = next(each for each in document["vms"] if each["vm"] == VM)
    return line["health"], line["text"], line["remedy"]
