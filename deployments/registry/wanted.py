"""The deployments that a configuration asks for: those of prefect.yaml that the host has a use for.

`prefect deploy --all` reads the same file. What it cannot do is done here: leave out what the host has no use for, take
the schedules from the configuration, spread them over hosts, and remove what is not wanted any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from infra.config.models import Config
from infra.config.schedules import NEVER, SchedulesConfig, spread
from tasks.names import HOST_TAG

CHECKOUT = Path(__file__).resolve().parents[2]
OURS = "vmborg"
_HEARTBEAT_S = "30"  # the least that Prefect takes: a run that died is noticed after three of them
_CONDITIONS: dict[str, Callable[[Config], bool]] = {
    "pull-dumps": lambda config: bool(config.dumps.hosts),
    "prune": lambda config: any(maintains(config, name) for name in config.repositories),
    "cloud-sync": lambda config: any(maintains(config, each.repository) for each in config.cloud.values()),
}
"""Flows that are wanted only under a condition."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule of a deployment."""

    slug: str
    cron: str
    timezone: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One deployment as it should be, in Prefect's own words."""

    flow: str
    name: str
    description: str
    entrypoint: str
    tags: tuple[str, ...]
    parameters: dict[str, Any]
    parameter_schema: dict[str, Any]
    job_variables: dict[str, Any]
    pull_steps: list[dict[str, Any]]
    limit: int
    collision_strategy: str
    schedules: tuple[Schedule, ...]

    @property
    def key(self) -> str:
        """What Prefect calls it: FLOW/NAME."""
        return f"{self.flow}/{self.name}"


def maintains(config: Config, repository: str) -> bool:
    """Whether this host prunes and copies the repository."""
    settings = config.repositories[repository]
    return settings.maintainer in {None, config.hypervisor.name}


def host_tag(host: str) -> str:
    """The tag of everything that belongs to a host."""
    return f"{HOST_TAG}{host}"


def wanted_deployments(config: Config, config_path: Path | None) -> list[Wanted]:
    """Every deployment of this host. `config_path` becomes a parameter; None: the flows find it themselves."""
    text = (CHECKOUT / "prefect.yaml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = yaml.safe_load(text)["deployments"]
    given = [_wanted(config, config_path, each) for each in found]
    return [each for each in given if _CONDITIONS.get(each.flow, lambda _: True)(config)]


def _wanted(config: Config, config_path: Path | None, written: dict[str, Any]) -> Wanted:
    module, _, attribute = str(written["entrypoint"]).rpartition(".")
    flow = cast("Flow[..., Any]", getattr(import_module(module), attribute))
    host = config.hypervisor.name
    limit = written["concurrency_limit"]
    variables = written["work_pool"]["job_variables"]
    return Wanted(
        flow=flow.name,
        name=host,
        description=written["description"],
        entrypoint=written["entrypoint"],
        tags=(*written["tags"], host_tag(host)),
        parameters={"config": str(config_path.absolute())} if config_path else {},
        parameter_schema=with_choices(parameter_schema(flow).model_dump_for_openapi(), _choices(config, flow.name)),
        job_variables={**variables, "env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": _HEARTBEAT_S}},
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(CHECKOUT)}}],
        limit=config.vms.parallel if flow.name == "backup-vm" else limit["limit"],
        collision_strategy=limit["collision_strategy"],
        schedules=tuple(_schedules(config, flow.name, written.get("schedules", []))),
    )


def _choices(config: Config, flow: str) -> dict[str, list[str]]:
    """Names that only the configuration knows, for the forms: who mistypes one is told before a run begins.

    VMs are not among them: they come and go without a deploy, and a name that is not listed would be refused.
    """
    return {
        "repository": list(config.repositories),
        "hosts": list(config.dumps.hosts),
        "name": list(config.cloud) if flow == "cloud-sync" else [],
    }


def with_choices(schema: dict[str, Any], choices: dict[str, list[str]]) -> dict[str, Any]:
    """The schema of parameters with an enum for each text, or list of texts, that has choices. Pure."""
    properties = {
        name: _limited(facts, choices[name]) if choices.get(name) else facts
        for name, facts in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties}


def _limited(facts: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """One parameter's facts; those of an optional one stand below `anyOf`."""
    if "anyOf" in facts:
        return {**facts, "anyOf": [_limited(each, names) for each in facts["anyOf"]]}
    if facts.get("type") == "array":
        return {**facts, "items": _limited(facts["items"], names)}
    return {**facts, "enum": names} if facts.get("type") == "string" else facts


def _schedules(config: Config, flow: str, written: list[dict[str, Any]]) -> Iterator[Schedule]:
    """Which schedules there are says the file, when they strike the configuration."""
    found = [(each["slug"], cron_of(config.schedules, each["slug"]), each.get("parameters", {})) for each in written]
    if flow == "backup-vm":
        found += [(f"vm-{vm}", cron, {"vm": vm}) for vm, cron in config.schedules.vms.items()]
    for slug, cron, parameters in found:
        if cron != NEVER:
            when = spread(cron, f"{config.hypervisor.name} {slug}")
            yield Schedule(slug, when, config.schedules.timezone, parameters)


def cron_of(schedules: SchedulesConfig, slug: str) -> str:
    """The configured expression of a schedule of prefect.yaml, by its slug."""
    return str(getattr(schedules, slug.replace("-", "_")))
