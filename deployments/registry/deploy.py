"""Bring a Prefect server to what a configuration asks for: pool and limits first, then deployments, then alerts.

Prefect's own `prefect deploy` stops at the first missing pool, lets a missing limit fail every strict run, and removes
nothing; it also throws away the runs that are scheduled already, at every call.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyOptions, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from deployments.registry.automations import put_automations
from deployments.registry.blocks import put_blocks
from deployments.registry.changes import Changes
from deployments.registry.wanted import OURS, Wanted, host_tag, wanted_deployments
from infra.config.models import Config
from tasks.limits import PREFIX, limit_name
from tasks.pages import every


def deploy(client: SyncPrefectClient, config: Config, config_path: Path | None, changes: Changes) -> None:
    """Register what this host's configuration asks for, and remove what it asked for before.

    Raises what Prefect's client raises.
    """
    host = config.hypervisor.name
    _put_pool(client, host, changes)
    _put_limits(client, config, changes)
    found = _found_deployments(client, host)
    wanted = wanted_deployments(config, config_path)
    for each in wanted:
        _put_deployment(client, each, found.pop(each.key, None), changes)
    for key, there in found.items():
        changes.remove(key, lambda there=there: client.delete_deployment(there.id))
    receivers = put_blocks(client, config, changes)
    put_automations(client, config, list(receivers.values()), changes)


# ----------------------------------------------------------------------------------------------------- pool, limits


def _put_pool(client: SyncPrefectClient, host: str, changes: Changes) -> None:
    description = f"Runs of vmborg on the hypervisor {host}: they go on where its disks are."
    pool = _read_pool(client, host)

    def write() -> None:
        if pool is None:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(
                WorkPoolCreate(name=host, description=description, type="process", base_job_template=template)
            )
        else:
            client.update_work_pool(host, WorkPoolUpdate(description=description))

    found = pool.description if pool else None
    changes.put(f"work pool {host}", wanted=description, found=found, write=write)


def _read_pool(client: SyncPrefectClient, name: str) -> WorkPool | None:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None


def _put_limits(client: SyncPrefectClient, config: Config, changes: Changes) -> None:
    """One slot for each repository; a limit of a local repository that is not named any more goes."""
    limits = every(client.read_global_concurrency_limits)
    found = {each.name: each.limit for each in limits if each.name.startswith(PREFIX)}
    names = sorted({limit_name(config, repository) for repository in config.repositories})
    for name in names:
        changes.put(
            f"limit {name}",
            wanted=1,
            found=found.get(name),
            write=lambda name=name: client.upsert_global_concurrency_limit_by_name(name, 1),
        )
    local = f"{PREFIX}{config.hypervisor.name}:|"
    for name in found:
        if name.startswith(local) and name not in names:
            changes.remove(f"limit {name}", lambda name=name: client.delete_global_concurrency_limit_by_name(name))


# ------------------------------------------------------------------------------------------------------ deployments


@dataclass(frozen=True, slots=True)
class _There:
    """What the server knows of a deployment, as far as we decide about it."""

    facts: dict[str, Any]
    schedules: frozenset[tuple[str, ...]]


def _found_deployments(client: SyncPrefectClient, host: str) -> dict[str, DeploymentResponse]:
    """Every deployment of ours of this host, by FLOW/NAME."""
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[OURS, host_tag(host)]))
    found = every(partial(client.read_deployments, deployment_filter=ours))
    return {f"{client.read_flow(each.flow_id).name}/{each.name}": each for each in found}


def _put_deployment(
    client: SyncPrefectClient, wanted: Wanted, found: DeploymentResponse | None, changes: Changes
) -> None:
    def write() -> None:
        client.create_deployment(
            flow_id=client.create_flow_from_name(wanted.flow),
            name=wanted.name,
            description=wanted.description,
            entrypoint=wanted.entrypoint,
            path=".",
            tags=list(wanted.tags),
            parameters=wanted.parameters,
            parameter_openapi_schema=wanted.parameter_schema,
            enforce_parameter_schema=True,
            work_pool_name=wanted.name,
            job_variables=wanted.job_variables,
            pull_steps=wanted.pull_steps,
            concurrency_limit=wanted.limit,
            concurrency_options=ConcurrencyOptions.model_validate({"collision_strategy": wanted.collision_strategy}),
            schedules=[
                DeploymentScheduleCreate(
                    schedule=CronSchedule(cron=each.cron, timezone=each.timezone),
                    active=True,
                    slug=each.slug,
                    parameters=each.parameters,
                )
                for each in wanted.schedules
            ],
        )

    changes.put(wanted.key, wanted=_as_wanted(wanted), found=_as_found(found) if found else None, write=write)


def _as_wanted(wanted: Wanted) -> _There:
    facts = {
        "description": wanted.description,
        "entrypoint": wanted.entrypoint,
        "tags": sorted(wanted.tags),
        "parameters": wanted.parameters,
        "parameter_openapi_schema": wanted.parameter_schema,
        "work_pool_name": wanted.name,
        "job_variables": wanted.job_variables,
        "pull_steps": wanted.pull_steps,
        "limit": wanted.limit,
        "collision_strategy": wanted.collision_strategy,
    }
    schedules = {(each.slug, each.cron, each.timezone, repr(each.parameters), "True") for each in wanted.schedules}
    return _There(facts, frozenset(schedules))


def _as_found(found: DeploymentResponse) -> _There:
    options, limit = found.concurrency_options, found.global_concurrency_limit
    facts = {
        "description": found.description,
        "entrypoint": found.entrypoint,
        "tags": sorted(found.tags),
        "parameters": found.parameters,
        "parameter_openapi_schema": found.parameter_openapi_schema,
        "work_pool_name": found.work_pool_name,
        "job_variables": found.job_variables,
        "pull_steps": found.pull_steps,
        "limit": limit.limit if limit else None,
        "collision_strategy": options.collision_strategy.value if options else None,
    }
    schedules = {
        (
            str(each.slug),
            each.schedule.cron if isinstance(each.schedule, CronSchedule) else repr(each.schedule),
            str(each.schedule.timezone) if isinstance(each.schedule, CronSchedule) else "",
            repr(each.parameters),
            str(each.active),
        )
        for each in found.schedules
    }
    return _There(facts, frozenset(schedules))
