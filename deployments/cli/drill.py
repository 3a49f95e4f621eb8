"""`vmborg drill`: run the flow drill."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context
from deployments.cli.flowrun import calling
from deployments.cli.words import size
from infra.errors import UsageError

if TYPE_CHECKING:
    from tasks.drills.model import Outcome

_NOT_PROVABLE = 3


@click.command
@click.argument("vms", metavar="[VM…]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every VM of this host, also those that are not due.")
@pass_context
def command(context: Context, *, vms: tuple[str, ...], everything: bool) -> int:
    """Prove that VMs restore: each is restored, booted where it can touch nothing, judged, and taken away.

    Without VM or --all, those that a schedule would try now. Exit code 1 if one failed, 3 if one cannot be tried here.
    """
    if vms and everything:
        raise UsageError("Name VMs, or say --all, not both.", remedy="See `vmborg drill --help`.")
    with calling(context, "drill") as drill:
        outcomes: list[Outcome] = drill(list(vms), everything=everything)
    context.output.document({"drills": outcomes})
    if not outcomes:
        context.output.line("No VM is due: `vmborg drill --all` tries every one.")
    for outcome in outcomes:
        _print(context, outcome)
    return _exit_code(outcomes)


def _print(context: Context, outcome: "Outcome") -> None:
    from tasks.drills.model import Verdict
    from tasks.drills.page import spent

    line = context.output.line
    line(f"{outcome.vm}: {outcome.verdict}: {outcome.reason}")
    if outcome.restore_s:
        booted = f", booted in {spent(outcome.boot_s)}" if outcome.boot_s is not None else ""
        line(f"  restored {size(outcome.size)} in {spent(outcome.restore_s)}{booted}, from {outcome.archive}")
    for note in outcome.notes:
        line(f"  {note}")
    if outcome.picture:
        line(f"  its screen: {outcome.picture}")
    if outcome.remedy and outcome.verdict is not Verdict.PROVEN:
        line(f"  What to do: {outcome.remedy}")


def _exit_code(outcomes: "list[Outcome]") -> int:
    from tasks.drills.model import Verdict

    found = {outcome.verdict for outcome in outcomes}
    if Verdict.FAILED in found:
        return 1
    return _NOT_PROVABLE if Verdict.NOT_PROVABLE in found else 0
