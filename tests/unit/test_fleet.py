"""What the runs of a fleet add up to."""

import pytest

from flows.backup_fleet import add_up
from tasks.fleet import Outcome


@pytest.mark.parametrize(
    ("states", "name", "kind"),
    [
        ([], "Completed", "COMPLETED"),
        (["Completed", "Completed"], "Completed", "COMPLETED"),
        (["Completed", "Partial"], "Partial", "FAILED"),
        (["Partial", "Failed"], "Failed", "FAILED"),
        (["Completed", "Crashed"], "Failed", "FAILED"),
        (["Completed", "Cancelled"], "Failed", "FAILED"),
        (["Completed", "Not started"], "Failed", "FAILED"),
    ],
)
def test_the_worst_counts(states: list[str], name: str, kind: str) -> None:
    """Completed if all are, Partial if nothing is worse, else Failed; whoever is not complete is named."""
    outcomes = [Outcome(f"vm{number}", state, "") for number, state in enumerate(states)]
    state = add_up(outcomes)
    assert (state.name, state.type.value) == (name, kind)
    for outcome in outcomes:
        assert (outcome.vm in str(state.message)) != outcome.complete
