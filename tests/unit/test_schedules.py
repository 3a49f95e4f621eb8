"""When deployments run: what is accepted as a schedule, and how hosts are spread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config.load import check
from infra.config.schedules import SchedulesConfig, spread
from infra.errors import ConfigError

BASE = "repositories: {main: {location: /srv/borg/main, encryption: none}}\n"


@pytest.mark.parametrize(
    "cron",
    [
        "H 2 * * *",
        "H/10 * * * *",
        "0 2 * * *",
        "*/5 0-6,22,23 1-31/2 jan-mar MON-fri",
        "0 0 * * 7",
        "never",
        " 0  2 * * * ",
    ],
)
def test_a_schedule_is_five_fields_or_never(cron: str) -> None:
    """Lists, ranges, steps, names and H for a minute are understood, and never."""
    config = check(f"{BASE}schedules: {{prune: '{cron}', vms: {{db01: '{cron}'}}}}", name="test")
    assert config.schedules.prune == config.schedules.vms["db01"] == " ".join(cron.split())


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "0 2 * *",
        "0 2 * * * *",
        "60 2 * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "5-1 * * * *",
        "0 H * * *",
        "H/0 * * * *",
        "@daily",
        "0 2 * * */0",
        "mon * * * *",
    ],
)
def test_what_is_no_schedule_is_refused_with_its_place(cron: str) -> None:
    """A mistake is told with its line and key, before anything is deployed."""
    with pytest.raises(ConfigError) as caught:
        check(f"{BASE}schedules:\n  check: '{cron}'\n", name="test")
    assert "line 3: schedules.check: " in caught.value.evidence


def test_a_time_zone_is_one_of_the_tz_database() -> None:
    """A zone that does not exist is a mistake in the configuration, not of the server at two in the morning."""
    with pytest.raises(ConfigError, match="1 mistake"):
        check(f"{BASE}schedules: {{timezone: Europe/Nowhere}}", name="test")
    assert check(f"{BASE}schedules: {{timezone: Europe/Berlin}}", name="test").schedules.timezone == "Europe/Berlin"


@given(st.text(max_size=20), st.integers(1, 59))
def test_a_spread_minute_hangs_on_the_name_alone(host: str, step: int) -> None:
    """The same host has the same minute at every call, between 0 and 59, or below its step."""
    minute, rest = spread("H 2 * * *", host).split(" ", 1)
    assert (int(minute) < 60, rest) == (True, "2 * * *")
    assert spread("H 2 * * *", host) == f"{minute} 2 * * *"
    first = spread(f"H/{step} * * * *", host).split("-59/")[0]
    assert int(first) < step


def test_forty_hosts_do_not_start_together() -> None:
    """Of forty hosts no more than a handful begins in the same minute."""
    minutes = [spread("H 2 * * *", f"kvm{number} backup-fleet").split(" ")[0] for number in range(40)]
    assert max(minutes.count(minute) for minute in minutes) <= 5
    assert len(set(minutes)) > 20


def test_only_the_minute_is_spread() -> None:
    """An expression without H is taken as it stands."""
    assert spread("5 2 * * thu", "kvm1") == "5 2 * * thu"


def test_every_default_is_a_schedule() -> None:
    """The defaults pass their own check."""
    defaults = SchedulesConfig().model_dump()
    assert SchedulesConfig.model_validate(defaults).model_dump() == defaults
