"""Mistakes in what is said about VMs that are gone, and about copies in a cloud."""

import pytest

from infra.config.load import check
from infra.config.models import Config
from infra.errors import ConfigError

MAIN = "repositories: {main: {location: /x, encryption: none}}\n"


def copy(**keys: str) -> Config:
    """A configuration with one copy that has these keys."""
    given = "".join(f", {key}: {value!r}" for key, value in keys.items())
    return check(f"{MAIN}cloud: {{off: {{remote: 's3:b/p', config: /c{given}}}}}\n", name="x")


@pytest.mark.parametrize(
    "value", ["10M", "512", "1.5GiB", "off", "10M:1M", "08:00,2M 22:00,off", "Mon-00:00,512k:1M Fri-23:59,10M"]
)
def test_a_bandwidth_is_as_rclone_takes_it(value: str) -> None:
    """Rates, rates up and down, and timetables of both are taken as they are."""
    assert copy(bandwidth=value).cloud["off"].bandwidth == value


@pytest.mark.parametrize("value", ["-rf", "-5m", "nan", "fast", "10M 1M", "08:00,2M,22:00,off", "$(id)", "10 M"])
def test_a_bandwidth_that_rclone_would_refuse_is_told_at_once(value: str) -> None:
    """Not by the first copy in the night, but when the file is read."""
    with pytest.raises(ConfigError, match=r"cloud\.off\.bandwidth: must be a rate"):
        copy(bandwidth=value)


def test_history_has_an_end() -> None:
    """More days than there is time are refused."""
    with pytest.raises(ConfigError, match="history_days"):
        copy(history_days="1" + "0" * 30)


def test_nothing_is_forgotten_in_its_grace() -> None:
    """A policy that deletes everything before the grace is over contradicts it."""
    assert check(f"{MAIN}retired: {{forget_after: 90d}}\n", name="x").retired.forget_after
    with pytest.raises(ConfigError, match="shorter than grace"):
        check(f"{MAIN}retired: {{forget_after: 89d}}\n", name="x")
