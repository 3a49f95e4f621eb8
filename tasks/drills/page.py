"""What Prefect's artifacts show of drills. Pure."""

from datetime import timedelta
from typing import Any

from tasks.dashboard.markdown import code, escaped, facts
from tasks.drills.model import Outcome, Verdict
from tasks.drills.picture import as_markdown
from tasks.units import duration, size

_MARKS = {Verdict.PROVEN: "✔", Verdict.FAILED: "✖", Verdict.NOT_PROVABLE: "?"}
_LARGEST = 256 * 1024
"""Bytes of a picture that is put into Prefect's database."""


def row(outcome: Outcome) -> dict[str, Any]:
    """One line of the run's table."""
    return {
        "VM": outcome.vm,
        "verdict": f"{_MARKS[outcome.verdict]} {outcome.verdict}",
        "what": outcome.reason,
        "restored": spent(outcome.restore_s),
        "booted": spent(outcome.boot_s),
        "size": size(outcome.size),
        "archive": outcome.archive,
    }


def page(outcome: Outcome, png: bytes) -> str:
    """One VM's drill, with the picture of its screen."""
    known = {
        "What": escaped(outcome.reason),
        "To do": escaped(outcome.remedy) if outcome.verdict is not Verdict.PROVEN else "",
        "Archive": code(outcome.archive),
        "Restored": f"{size(outcome.size)} in {spent(outcome.restore_s)}",
        "Booted in": spent(outcome.boot_s),
        "Judged by": outcome.judged_by,
        "Left out": escaped(", ".join(outcome.notes)),
    }
    parts = [f"# {_MARKS[outcome.verdict]} {escaped(outcome.vm)}: {outcome.verdict}", facts(known)]
    if png and len(png) <= _LARGEST:
        parts.append(as_markdown(png, "its screen"))
    if outcome.console:
        parts += ["The end of its console:", "\n".join(f"> {escaped(line)}  " for line in outcome.console.splitlines())]
    return "\n\n".join(parts) + "\n"


def spent(seconds: float | None) -> str:
    """A time as people read it, tenths of a second when it is short."""
    if seconds is None:
        return "-"
    return f"{seconds:.1f}s" if seconds < 60 else duration(timedelta(seconds=seconds))  # noqa: PLR2004 - a minute


def summary(outcomes: list[Outcome]) -> str:
    """Everything in one line."""
    proven = sum(each.verdict is Verdict.PROVEN for each in outcomes)
    bad = [f"{each.vm} {each.verdict}" for each in outcomes if each.verdict is not Verdict.PROVEN]
    return f"{proven} of {len(outcomes)} VMs proven" + (f"; {', '.join(bad)}" if bad else "")
