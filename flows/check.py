"""Check every repository: borg's own check, its key, and archives that are really read back."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from infra.borg.messages import PercentProgress
from infra.config.models import Config
from infra.errors import VmborgError
from tasks.checking.run import Checked, check_storage, sample_archives
from tasks.checking.sample import Sample
from tasks.growth import all_unexpected
from tasks.job import load_config
from tasks.lateness import SKIPPED, superseded
from tasks.limits import one_writer
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import artifact_key, step
from tasks.progress import ProgressReporter
from tasks.repositories import repository_names
from tasks.units import size

_STEPS = 10_000  # borg tells its progress in steps of its own; the bar has these


@step("borg-check")
def check_one(config: Config, name: str, *, verify_data: bool) -> Checked:
    """borg's own check of one repository; see tasks.checking.run for the errors."""
    key, what = artifact_key("check", name), f"Checking the repository {name}"
    with ProgressReporter(source=name, key=key, total=_STEPS, description=what) as reporter:

        def tell(progress: PercentProgress) -> None:
            reporter.report(_STEPS * progress.current // max(progress.total, 1))

        return check_storage(config, name, verify_data=verify_data, now=datetime.now(UTC), on_progress=tell)


@step("sample")
def sample_one(config: Config, name: str) -> tuple[Sample, ...]:
    """Read archives of one repository back; see tasks.checking.run for the errors."""
    return sample_archives(config, name, now=datetime.now(UTC))


@flow(name="check", flow_run_name=on_host("check"), persist_result=False)
def check(
    config: str | None = None, repository: str | None = None, *, verify_data: bool = False
) -> State[list[Checked]]:
    """Check the repositories. Failed when one is damaged, not what its manifests promise, or cannot be read.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
        repository: Only this repository; all of them if left out.
        verify_data: Read and verify every byte, not just the next slice of the segments.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data=[])
    settings = load_config(config)
    done = [_try(settings, name, verify_data=verify_data) for name in repository_names(settings, repository)]
    growth = all_unexpected(settings.state)
    create_table_artifact(
        key="check",
        table=[_row(each) for each in done] + [{"repository": "", "what": vm, "result": growth[vm]} for vm in growth],
        description="\n\n".join(f"**Unexpected growth** of {vm}: {said}" for vm, said in growth.items()) or None,
    )
    bad = [each.repository for each in done if each.error]
    if bad:
        return Failed(message=f"Not sound: {', '.join(bad)}", data=done)
    return Completed(message=f"{len(done)} repositories are sound", data=done)


def _try(config: Config, name: str, *, verify_data: bool) -> Checked:
    """One repository's damage does not keep the next from being checked."""
    checked = Checked(name, config.repositories[name].location)
    try:
        with one_writer(config, name):
            checked = check_one(config, name, verify_data=verify_data)
            return replace(checked, samples=sample_one(config, name))
    except VmborgError as error:
        return replace(checked, error=error)


def _row(checked: Checked) -> dict[str, Any]:
    read = ", ".join(f"{each.archive} ({size(each.size)})" for each in checked.samples)
    return {
        "repository": checked.repository,
        "what": checked.kind,
        "result": checked.error.brief if checked.error else "sound",
        "key": checked.key,
        "read back": read,
    }
