"""prefect.yaml says only what Prefect reads: its models ignore a misspelt key without a word."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from pydantic import BaseModel

from deployments.registry.wanted import cron_of, wanted_deployments
from infra.config.models import Config
from infra.config.schedules import SchedulesConfig

ROOT = Path(__file__).parents[2]
OURS = {"definitions"}
"""Where YAML anchors live; Prefect does not read it."""


def load() -> dict[str, Any]:
    """The file, its anchors resolved."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    return document


DEPLOYMENTS: list[dict[str, Any]] = load()["deployments"]
each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["entrypoint"])


def names(model: type[BaseModel]) -> set[str]:
    """The keys that a model reads from YAML."""
    return {field.alias or name for name, field in model.model_fields.items()}


def test_top_level_keys_are_prefects() -> None:
    """The file holds nothing at its top that Prefect would ignore, but the anchors."""
    assert set(load()) - OURS <= names(PrefectYamlModel)
    assert PrefectYamlModel.model_validate(load()).deployments


@each_deployment
def test_keys_of_a_deployment_are_prefects(deployment: dict[str, Any]) -> None:
    """No key of a deployment, of its work pool or of a schedule is one that Prefect does not know."""
    assert set(deployment) <= names(DeploymentConfig)
    assert set(deployment["work_pool"]) <= names(WorkPoolConfig)
    assert set(deployment["concurrency_limit"]) <= names(ConcurrencyLimitSpec)
    for schedule in deployment.get("schedules", []):
        RawScheduleConfig.model_validate(schedule)


@each_deployment
def test_entrypoint_is_a_flow_that_takes_the_parameters(deployment: dict[str, Any]) -> None:
    """Every entrypoint is a flow of this checkout, and takes the parameters that the file gives it."""
    module, _, name = deployment["entrypoint"].rpartition(".")
    found = getattr(import_module(module), name)
    assert isinstance(found, Flow)
    given = set(deployment.get("parameters", {})).union(
        *(schedule.get("parameters", {}) for schedule in deployment.get("schedules", []))
    )
    assert given <= set(found.parameters.properties)


@each_deployment
def test_a_dying_worker_does_not_break_the_log_pipe(deployment: dict[str, Any]) -> None:
    """Runs do not write into a pipe of their worker: with the worker dead, the next line would end the backup."""
    assert deployment["work_pool"]["job_variables"]["stream_output"] is False


def test_names_are_unique() -> None:
    """No two deployments of one flow share a name: the second would silently replace the first."""
    keys = [(deployment["entrypoint"], deployment["name"]) for deployment in DEPLOYMENTS]
    assert len(keys) == len(set(keys))


@each_deployment
def test_every_deployment_says_what_it_is_and_what_happens_when_two_meet(deployment: dict[str, Any]) -> None:
    """Each has a description, our tag, and a limit with its collision strategy."""
    assert deployment["description"].endswith(".")
    assert deployment["tags"][0] == "vmborg"
    assert deployment["concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_limit"]["collision_strategy"] in {"ENQUEUE", "CANCEL_NEW"}


@each_deployment
def test_a_form_explains_every_parameter(deployment: dict[str, Any]) -> None:
    """Each parameter of the flow has a description in the schema from which Prefect draws its form."""
    module, _, name = deployment["entrypoint"].rpartition(".")
    found = getattr(import_module(module), name).parameters.properties
    assert [key for key, facts in found.items() if not facts.get("description")] == []


def test_a_form_offers_the_names_that_the_configuration_knows() -> None:
    """Repositories, copies and dump hosts are an enum, also where they are optional or a list; VMs are none."""
    repositories = {name: {"location": f"/srv/{name}", "encryption": "none"} for name in ("main", "second")}
    hosts = {"db01": {"address": "db01", "sources": [{"kind": "files", "paths": ["/etc"]}]}}
    cloud = {"offsite": {"remote": "s3:bucket", "config": "/etc/rclone.conf"}}
    config = Config.model_validate({"repositories": repositories, "dumps": {"hosts": hosts}, "cloud": cloud})
    forms = {each.flow: each.parameter_schema["properties"] for each in wanted_deployments(config, None)}
    assert forms["prune"]["repository"]["anyOf"][0]["enum"] == ["main", "second"]
    assert forms["cloud-sync"]["name"]["anyOf"][0]["enum"] == ["offsite"]
    assert forms["pull-dumps"]["hosts"]["anyOf"][0]["items"]["enum"] == ["db01"]
    assert "enum" not in json.dumps(forms["backup-vm"])


def test_schedules_are_those_of_the_configuration() -> None:
    """Each schedule's slug is a key of `schedules`, its expression that key's default at minute 0; none is missing."""
    schedules = [each for deployment in DEPLOYMENTS for each in deployment.get("schedules", [])]
    defaults = SchedulesConfig()
    for each in schedules:
        expected = cron_of(defaults, each["slug"]).replace("H/", "0-59/").replace("H", "0")
        assert (each["cron"], each["timezone"]) == (expected, "UTC")
    keys = set(SchedulesConfig.model_fields) - {"timezone", "vms"}
    assert {each["slug"].replace("-", "_") for each in schedules} == keys
