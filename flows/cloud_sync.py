"""Copy repositories to their remotes."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from infra.config.models import Config
from infra.errors import VmborgError
from infra.rclone.command import OnTransfer, Transfer
from tasks.cloud.copy import Copied, make_copy, preview
from tasks.cloud.job import cloud_names, open_job
from tasks.job import load_config
from tasks.lateness import SKIPPED, superseded
from tasks.limits import one_writer
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import artifact_key, step
from tasks.progress import ProgressReporter
from tasks.units import size

Outcome = Copied | VmborgError


@step("cloud-sync")
def copy_one(config: Config, name: str, *, dry_run: bool, start_over: bool, allow_shrink: bool) -> Copied:
    """One copy; see tasks.cloud.copy for the errors."""
    job = open_job(config, name, datetime.now(UTC).replace(microsecond=0))
    if dry_run:
        return preview(job, start_over=start_over, allow_shrink=allow_shrink)
    key, what = artifact_key("cloud-sync", name), f"Copying {job.settings.repository} to {job.settings.remote}"
    with ProgressReporter(source=name, key=key, total=0, description=what) as reporter:

        def teller(phase: str) -> OnTransfer:
            def tell(transfer: Transfer) -> None:
                reporter.report_of(transfer.done, transfer.total, _words(phase, transfer))

            return tell

        return make_copy(job, start_over=start_over, allow_shrink=allow_shrink, teller=teller)


def _words(phase: str, transfer: Transfer) -> str:
    eta = f", {transfer.eta:.0f} s left" if transfer.eta is not None else ""
    return f"{phase}, {size(transfer.speed)}/s{eta}"


@flow(name="cloud-sync", flow_run_name=on_host("copies of repositories"), persist_result=False)
def cloud_sync(
    config: str | None = None,
    name: str | None = None,
    *,
    dry_run: bool = False,
    start_over: bool = False,
    allow_shrink: bool = False,
) -> State[dict[str, Outcome]]:
    """Make every copy of the configuration. Failed when one was refused or did not prove whole.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
        name: Only this copy; all of them if left out.
        dry_run: Tell what would be copied and deleted, and change nothing.
        start_over: Make a new copy where the one that was made before is gone.
        allow_shrink: Copy although more is gone than prunes on this host explain.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data={})
    settings = load_config(config)
    done: dict[str, Outcome] = {}
    for each in cloud_names(settings, name):
        try:
            with one_writer(settings, settings.cloud[each].repository):
                done[each] = copy_one(settings, each, dry_run=dry_run, start_over=start_over, allow_shrink=allow_shrink)
        except VmborgError as error:  # one copy's failure does not keep the next from being made
            done[each] = error
    create_table_artifact(key="cloud-sync", table=[_row(each, outcome) for each, outcome in done.items()])
    failed = [each for each, outcome in done.items() if isinstance(outcome, VmborgError)]
    if failed:
        return Failed(message=f"Not copied: {', '.join(failed)}", data=done)
    return Completed(message=f"{len(done)} copies{' looked at' if dry_run else ''}", data=done)


def _row(name: str, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, VmborgError):
        return {"copy": name, "result": type(outcome).__name__, "what": outcome.brief}
    return {
        "copy": name,
        "result": "whole" if outcome.proof else "dry run",
        "what": f"{outcome.files} files, {size(outcome.size)} copied; {outcome.deleted} to the history",
        "proof": outcome.proof,
        "size": size(outcome.total_size),
    }
