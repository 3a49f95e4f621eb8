"""Prove that VMs restore: bring each into scratch, boot it where it can touch nothing, judge it, take it away."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from infra.config.models import Config
from tasks.drills.job import Job, choose, work_off
from tasks.drills.model import Candidate, Outcome, Verdict
from tasks.drills.page import page, row, summary
from tasks.drills.run import drill_vm
from tasks.drills.under_way import take_away_dead
from tasks.job import load_config
from tasks.lateness import SKIPPED, superseded
from tasks.logs import forward_to_run
from tasks.names import on_host
from tasks.policy import step, vm_key


@step("choose")
def choose_vms(config: Config, vms: list[str], *, everything: bool) -> Job:
    """Take away what dead drills left, then choose; see tasks.drills.job for the errors."""
    take_away_dead(config)
    return choose(config, vms, everything=everything, now=datetime.now(UTC))


@step("drill-vm")
def drill_one(config: Config, candidate: Candidate) -> Outcome:
    """One VM; see tasks.drills.run for the errors."""
    return drill_vm(config, candidate)


@flow(name="drill", flow_run_name=on_host("drill"), persist_result=False)
def drill(config: str | None = None, vms: list[str] | None = None, *, everything: bool = False) -> State[list[Outcome]]:
    """Try to bring VMs back from their newest archives. Failed when one does not restore, or does not do what it must.

    Args:
        config: Path of the configuration on the host that runs this; its default is /etc/vmborg/vmborg.yaml.
        vms: Names of VMs; if left out, those that were not tried for the longest, within the budgets of `drills`.
        everything: Every VM whose newest archive this host made, within the budgets.
    """
    forward_to_run()
    if late := superseded():
        return Completed(name=SKIPPED, message=late, data=[])
    settings = load_config(config)
    job = choose_vms(settings, vms or [], everything=everything)
    outcomes: list[Outcome] = []
    for outcome in work_off(settings, job, lambda candidate: drill_one(settings, candidate)):
        outcomes.append(outcome)
        _show(outcome)
    if not outcomes:
        return Completed(message="No VM is due", data=outcomes)
    create_table_artifact(key="drill", table=[row(each) for each in outcomes], description=summary(outcomes))
    if any(each.verdict is Verdict.FAILED for each in outcomes):
        return Failed(message=summary(outcomes), data=outcomes)
    return Completed(message=summary(outcomes), data=outcomes)


def _show(outcome: Outcome) -> None:
    png = Path(outcome.picture).read_bytes() if outcome.picture else b""
    key = vm_key("drill", outcome.vm, outcome.uuid)
    create_markdown_artifact(key=key, markdown=page(outcome, png), description=f"{outcome.vm}: {outcome.verdict}")
