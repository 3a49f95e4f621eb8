"""What is told, and how often; how a webhook's address is written for apprise."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from deployments.registry.blocks import webhook_address
from infra.errors import ConfigError
from tasks.coverage import Alarm, alarms_of, untold
from tasks.health import Finding, Health
from tasks.status import Status, VmStatus

NOW = datetime(2026, 1, 31, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def vm(name: str, health: Health) -> VmStatus:
    """One VM's line."""
    return VmStatus(health=health, vm=name, uuid=f"uuid-of-{name}", state="running", text=f"{name} is {health}")


def test_only_what_is_critical_is_told() -> None:
    """A warning is for those who look; an alert is for what needs somebody now."""
    levels = [Health.OK, Health.WARNING, Health.UNKNOWN, Health.CRITICAL]
    vms = tuple(vm(level.value, level) for level in levels)
    problems = (Finding(Health.CRITICAL, "repository main", "read", "gone"), Finding(Health.WARNING, "x", "y", "z"))
    told = alarms_of(Status(Health.CRITICAL, vms, problems))
    assert [each.subject for each in told] == ["VM critical", "repository main"]


def test_what_stays_wrong_is_told_again_after_a_while() -> None:
    """New at once; then not before `repeat` has passed."""
    alarms = [Alarm(source, source, "", "") for source in ("new", "just", "old")]
    told = {"just": NOW - DAY + timedelta(seconds=1), "old": NOW - DAY, "over": NOW}
    assert [each.source for each in untold(alarms, told, now=NOW, repeat=DAY)] == ["new", "old"]


def test_a_webhook_keeps_its_query_and_gets_its_token() -> None:
    """Parameters of the address stay parameters of the request, the token becomes a header."""
    parts = urlsplit(webhook_address("https://user:word@example.com:8443/hook/x?room=a%20b", "a b+c"))
    assert (parts.scheme, parts.netloc, parts.path) == ("jsons", "user:word@example.com:8443", "/hook/x")
    query = parse_qs(parts.query)
    assert query == {"-room": ["a b"], "+Authorization": ["Bearer a b+c"], ":message": ["text"]}


def test_an_address_that_is_no_webhook_is_refused_without_being_shown() -> None:
    """The address is a secret, also in an error."""
    with pytest.raises(ConfigError) as caught:
        webhook_address("ftp://example.com/secret", "")
    assert "secret" not in str(caught.value)
