"""How the growth of a repository is told from one sample a day."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config.models import Config
from infra.model import StateDir
from tasks.destinations import ArchiveFigures, Destination
from tasks.health import Health
from tasks.space import Sample, days_left, growth, known, measure, remember, remember_told, samples, space_findings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def kept(*used: int, total: int = 1000) -> list[Sample]:
    """A sample a day, the last one now."""
    return [Sample(NOW - DAY * back, each, total - each, total) for back, each in enumerate(reversed(used))][::-1]


@given(st.integers(0, 100), st.integers(-3, 20), st.integers(2, 30))
def test_a_steady_growth_is_found(first: int, pace: int, count: int) -> None:
    """The pace of a line is that of the line; days are left only if it grows."""
    line = kept(*(first + 100 + pace * day for day in range(count)))
    found = growth(line)
    assert found == pytest.approx(pace, abs=1e-6)
    if pace > 0:
        assert days_left(line) == pytest.approx(line[-1].free / pace)
    elif pace < 0:
        assert days_left(line) is None


def test_what_is_long_ago_does_not_count() -> None:
    """A month's samples decide."""
    assert growth(kept(*[0] * 20, *range(500, 531))) == pytest.approx(1)


def test_the_first_day_says_nothing() -> None:
    """Less than a day of samples is no pace: the first backups store everything."""
    assert growth([]) is None
    assert growth(kept(5)) is None
    assert days_left([Sample(NOW - DAY / 2, 1, 9, 10), Sample(NOW, 9, 1, 10)]) is None


def test_a_day_has_one_sample(tmp_path: Path) -> None:
    """The newest of a day stays; they are read as they were written."""
    state = StateDir(tmp_path)
    remember(state, "main", Sample(NOW - DAY, 1, 9, 10))
    remember(state, "main", Sample(NOW - timedelta(hours=2), 2, 8, 10))
    said = remember(state, "main", Sample(NOW, 3, 7, 10))
    assert [each.size for each in said] == [1, 3]
    assert samples(state, "main") == said
    assert samples(state, "another") == []


def test_only_a_repository_of_this_host_is_measured(tmp_path: Path) -> None:
    """Its size is that of its files; one behind SSH, or one that is not there, has no space to tell of."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data").write_bytes(b"x" * 4096)
    locations = {"here": str(tmp_path / "here"), "there": "ssh://host/srv/borg", "gone": str(tmp_path / "gone")}
    repositories = {name: {"location": location, "encryption": "none"} for name, location in locations.items()}
    config = Config.model_validate(
        {"repositories": repositories, "alerts": {"min_free": 100}, "vms": {"defaults": {"repository": "here"}}}
    )
    found = measure(config, "here", NOW)
    assert found
    assert (found.size, found.used + found.free) == (4096, found.total)
    assert measure(config, "there", NOW) is measure(config, "gone", NOW) is None
    assert [each.subject for each in space_findings(config)] == ["repository here"]


def test_what_borg_told_of_a_server_is_held_against_its_capacity(tmp_path: Path) -> None:
    """One that nearly holds what it may is a finding; without `capacity` only its size is known."""
    repositories = {
        "full": {"location": "ssh://host/full", "encryption": "none", "capacity": "1000B"},
        "other": {"location": "ssh://host/other", "encryption": "none"},
        "here": {"location": str(tmp_path), "encryption": "none"},
        "failed": {"location": "ssh://host/failed", "encryption": "none", "capacity": "1000B"},
    }
    settings = {"state_dir": str(tmp_path), "repositories": repositories, "alerts": {"min_free": 1}}
    config = Config.model_validate({**settings, "vms": {"defaults": {"repository": "full"}}})
    told = ArchiveFigures("a", (), original=5, stored=4, seconds=1, repository_size=995)
    destinations = [Destination(name, None, figures=told) for name in ("full", "other", "here")]
    remember_told(config, (*destinations, Destination("failed", None)), NOW)
    assert known(config, "full") == [Sample(NOW, 995, 5, 1000)]
    assert known(config, "other") == [Sample(NOW, 995, 0, 0)]
    assert known(config, "here") == known(config, "failed") == []
    assert days_left(known(config, "other")) is None
    (finding,) = space_findings(config)
    assert (finding.subject, finding.text) == ("repository full", "only 0 % of its capacity are free")


def test_a_capacity_smaller_than_what_is_there_is_full(tmp_path: Path) -> None:
    """Nothing is free then, not less than nothing; samples that cannot be read are told."""
    remote = {"location": "ssh://host/main", "encryption": "none", "capacity": "1KiB"}
    config = Config.model_validate({"state_dir": str(tmp_path), "repositories": {"main": remote}})
    remember(config.state, "main", Sample(NOW, 4096, 0, 0))
    assert known(config, "main") == [Sample(NOW, 4096, 0, 1024)]
    (path,) = (config.state.upkeep / "space").iterdir()
    path.write_text("{", encoding="ascii")
    (finding,) = space_findings(config)
    assert finding.health is Health.UNKNOWN
