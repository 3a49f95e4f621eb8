"""Several hosts in one call: each is its own affair."""

import pytest

from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import free_port

pytestmark = pytest.mark.integration


def test_one_host_that_is_down_does_not_stop_the_others(place: Place) -> None:
    """Of three hosts one is down: the call fails (exit 1), names it, and the archives of the others are there."""
    place.initialise()
    place.configure([{"kind": "command", "command": "echo whole"}], connect_timeout="20s")
    key = (place.state / "dumps" / "db" / "host_key").read_text().strip()
    down = {**place.host, "port": free_port(), "host_key": key}
    place.write({"db": place.host, "down": down, "other": {**place.host, "host_key": key}})
    call = place.run("--json", "dumps", "pull")
    assert call.code == 1
    states = {each["host"]: each["state"] for each in call.document["pulls"]}
    assert states == {"db": "complete", "down": "failed", "other": "complete"}
    error = next(each["error"] for each in call.document["pulls"] if each["host"] == "down")
    assert error["type"] == "HostUnreachable"
    assert {name.split("@")[0] for name in place.archives()} == {"dump.db", "dump.other"}
    status = place.run("--json", "status").document["dumps"]
    assert {each["host"]: each["health"] for each in status} == {"db": "ok", "down": "critical", "other": "ok"}
