"""Bring the pages of the dashboard up to date: artifacts with keys that stay, so that Prefect keeps their history."""

import json
import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.client.schemas.objects import ArtifactCollection

from infra.config.models import Config
from infra.errors import JournalError
from infra.journal.facts import read_facts, write_facts
from infra.model import StateDir
from tasks.catalogue import Catalogue
from tasks.dashboard.cells import lines
from tasks.dashboard.fleet_page import FLEET, HostTable, aged, fleet_page, host_key, listed, page_of, rows, verdict
from tasks.dashboard.repository_page import Contents, headline, repository_key, repository_page
from tasks.dashboard.vm_page import page_key, vm_page, vm_verdict
from tasks.pages import every
from tasks.policy import step
from tasks.space import Sample, known, measure, remember
from tasks.status import Outlook, Source, VmStatus, look

logger = logging.getLogger("vmborg.dashboard")


@step("dashboard")
def refresh(config: Config, outlook: Outlook | None = None) -> None:
    """Bring the pages up to date; look at the host first if that was not done. What goes wrong is only logged."""
    try:
        publish(config, outlook or look(config), now=datetime.now(UTC))
    except Exception as error:  # noqa: BLE001 - whatever Prefect, its transport and a strange table raise
        logger.warning("the dashboard could not be brought up to date: %s: %s", type(error).__name__, error)


def publish(config: Config, outlook: Outlook, *, now: datetime) -> None:
    """Write every page that this host knows something new about.

    The fleet's and the repositories' are new each time, a VM's when it has another archive or verdict. Raises
    JournalError, and what Prefect's client raises when the server does not take them.
    """
    host, status = config.hypervisor.name, outlook.status
    said = rows(host, list(lines(status)), status.problems)
    _publish_vms(config, outlook, now)
    create_table_artifact(
        key=host_key(host), table=cast("list[dict[str, Any]]", said), description=verdict([HostTable(host, now, said)])
    )
    others = [each for each in _all_tables() if each.host != host]
    tables = aged([HostTable(host, now, said), *others], now=now, silent=config.alerts.silent)
    keys = {page_of(row) for row in listed(tables)} | {host_key(each.host) for each in tables}
    page = fleet_page(tables, _ids(keys - {""}), now=now)
    create_markdown_artifact(key=FLEET, markdown=page, description=verdict(tables))
    new_data = {name: count for source in outlook.sources for name, count in source.new_data.items()}
    for name in config.repositories:
        _publish_repository(config, name, outlook.catalogue, new_data, now=now)


def _all_tables() -> list[HostTable]:
    """What every hypervisor said last, as far as this server knows."""
    found = _latest(ArtifactCollectionFilterKey(like_=f"{FLEET}-"))
    tables = [_table(each) for each in found if (each.key or "").startswith(f"{FLEET}-") and each.type == "table"]
    return [each for each in tables if each is not None]


def _ids(keys: Collection[str]) -> dict[str, str]:
    """The newest artifact of each of these keys."""
    return {each.key: str(each.latest_id) for each in _latest(ArtifactCollectionFilterKey(any_=sorted(keys)))}


def _latest(key: ArtifactCollectionFilterKey) -> list[ArtifactCollection]:
    wanted = ArtifactCollectionFilter(key=key)
    with get_client(sync_client=True) as client:
        return every(partial(client.read_latest_artifacts, artifact_filter=wanted))


def _table(found: ArtifactCollection) -> HostTable | None:
    """A hypervisor's table as it is stored; None for what is none of ours."""
    try:
        said: Any = json.loads(found.data) if isinstance(found.data, str) else found.data
        host = str(said[0]["host"])
        clean = [{str(key): str(value) for key, value in row.items()} for row in said if "status" in row]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if found.updated is None or host_key(host) != found.key:
        return None
    return HostTable(host, found.updated, clean)


def _publish_vms(config: Config, outlook: Outlook, now: datetime) -> None:
    path = _path(config.state)
    shown = read_facts(path)
    wanted: dict[str, str] = {}
    sources = {source.uuid: source for source in outlook.sources}
    for vm in outlook.status.vms:
        if not vm.archive:
            continue
        key, source = page_key(vm.vm, vm.uuid), sources[vm.uuid]
        wanted[key] = _fingerprint(vm, source)
        if shown.get(key) != wanted[key]:
            page = vm_page(config.hypervisor.name, vm, source.archives, source.new_data, now=now)
            create_markdown_artifact(key=key, markdown=page, description=vm_verdict(vm))
    write_facts(path, wanted)


def _fingerprint(vm: VmStatus, source: Source) -> str:
    """What makes a new page worth the room that it takes in Prefect's database."""
    return " ".join([vm.archive, vm.health.value, str(len(source.archives)), vm.text])


def _publish_repository(
    config: Config, name: str, catalogue: Catalogue, new_data: Mapping[str, int], *, now: datetime
) -> None:
    host = config.hypervisor.name
    failure = catalogue.failures.get(name)
    contents = Contents(
        vms=[each for each in catalogue.archives if each.repository == name],
        dumps=[each for each in catalogue.dumps if each.repository == name],
        new_data=new_data,
        problem=failure.brief if failure else "",
    )
    kept = _space(config, name, now)
    page = repository_page(host, name, config.repositories[name], contents, kept=kept, now=now)
    create_markdown_artifact(key=repository_key(host, name), markdown=page, description=headline(contents, kept))


def _space(config: Config, name: str, now: datetime) -> list[Sample]:
    try:
        sample = measure(config, name, now)
        return remember(config.state, name, sample) if sample is not None else known(config, name)
    except (OSError, JournalError) as error:
        logger.warning("the space of the repository %s is not known: %s", name, error)
        return []


def _path(state: StateDir) -> Any:
    return state.upkeep / "pages.json"
