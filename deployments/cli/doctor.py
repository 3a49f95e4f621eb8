"""`vmborg doctor`: a verdict and a remedy per line."""

from typing import TYPE_CHECKING

import click

from deployments.cli.context import Context, pass_context

if TYPE_CHECKING:
    from tasks.health import Finding


@click.command
@click.argument("vm", required=False)
@click.option("--quiet", is_flag=True, help="Show only what is not ok.")
@pass_context
def command(context: Context, *, vm: str | None, quiet: bool) -> int:
    """Check this host, its repositories and its VMs, or only VM; say what to do about what is wrong.

    Exit code as of monitoring plugins: 0 ok, 1 warning, 2 critical, 3 unknown.
    """
    from tasks.doctor import diagnose
    from tasks.health import Health

    def show(finding: "Finding") -> None:
        if quiet and finding.health is Health.OK:
            return
        context.output.verdict(finding.health.value, f"{finding.subject}: {finding.check}: {finding.text}")
        if finding.remedy and finding.health is not Health.OK:
            context.output.line(f"{'':10}-> {finding.remedy}")

    diagnosis = diagnose(context.config, vm=vm, on_finding=show)
    context.output.document(diagnosis)
    bad = sum(finding.health is not Health.OK for finding in diagnosis.findings)
    context.output.verdict(diagnosis.health.value, f"{len(diagnosis.findings)} checks, {bad} not ok")
    return diagnosis.health.exit_code
