"""Prune every repository of which this host is the maintainer, and remember which VMs are gone."""

import logging
from datetime import UTC, datetime

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from infra.config.models import Config
from infra.errors import VmborgError
from tasks.job import load_config
from tasks.lateness import SKIPPED, superseded
from tasks.limits import one_writer
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import artifact_key, step
from tasks.repositories import repository_names
from tasks.retention.model import Pruned, rows
from tasks.retention.outlook import View
from tasks.retention.run import look_around, prune_repository

logger = logging.getLogger("vmborg.prune")


@step("look")
def look_at_host(config: Config) -> View:
    """What libvirt knows of this host's VMs."""
    return look_around(config, datetime.now(UTC))


@step("prune")
def prune_one(config: Config, name: str, view: View, *, dry_run: bool) -> Pruned:
    """One repository, and its table as an artifact; see tasks.retention.run for the errors."""
    pruned = prune_repository(config, name, view, dry_run=dry_run)
    if pruned.outlook is not None:
        create_table_artifact(
            key=artifact_key("prune", name),
            table=rows(pruned.outlook),
            description=_describe(pruned),
        )
    return pruned


@flow(name="prune", flow_run_name=on_host("prune"), persist_result=False)
def prune(config: str | None = None, repository: str | None = None, *, dry_run: bool = False) -> State[list[Pruned]]:
    """Delete the archives that no rule keeps, by name, and free their space. Failed when a repository could not be.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
        repository: Only this repository; all of them if left out.
        dry_run: Tell the fate of each archive and change nothing.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data=[])
    settings = load_config(config)
    names = repository_names(settings, repository)
    view = look_at_host(settings)
    done = [_try(settings, name, view, dry_run=dry_run) for name in names]
    failed = [each.repository for each in done if each.error]
    if failed:
        return Failed(message=f"Not pruned: {', '.join(failed)}", data=done)
    return Completed(message="; ".join(_summary(each) for each in done), data=done)


def _try(config: Config, name: str, view: View, *, dry_run: bool) -> Pruned:
    """One repository's failure does not keep the next from being pruned."""
    try:
        with one_writer(config, name):
            return prune_one(config, name, view, dry_run=dry_run)
    except VmborgError as error:
        return Pruned(name, config.repositories[name].location, error=error)


def _summary(pruned: Pruned) -> str:
    count = len(pruned.outlook.pruned) if pruned.outlook else 0
    if pruned.withheld:
        return f"{pruned.repository}: {count} archives would go ({pruned.withheld})"
    return f"{pruned.repository}: {count} archives deleted"


def _describe(pruned: Pruned) -> str:
    return "\n\n".join([_summary(pruned), *pruned.notes])
