"""Which repositories share one writer."""

from typing import Any

from infra.config.models import Config
from tasks.limits import limit_name


def name_of(host: str, location: str) -> str:
    """The limit of a repository at this location in the configuration of this host."""
    settings: dict[str, Any] = {
        "hypervisor": {"name": host},
        "repositories": {"main": {"location": location, "encryption": "none"}},
    }
    return limit_name(Config.model_validate(settings), "main")


def test_a_remote_repository_has_one_limit_for_all_hosts() -> None:
    """Two hosts that write to one repository wait for each other."""
    location = "ssh://borg@backup:2222/srv/borg/main"
    assert name_of("kvm1", location) == name_of("kvm2", f"{location}/")


def test_a_local_path_has_one_limit_for_each_host() -> None:
    """The same path on two hosts is two repositories."""
    assert name_of("kvm1", "/srv/borg/main") != name_of("kvm2", "/srv/borg/main")


def test_a_name_is_one_that_prefect_takes() -> None:
    """Prefect refuses these characters in names."""
    assert not set("/%&<>") & set(name_of("kvm1", "ssh://borg@backup/a%b&c<d>/main"))
