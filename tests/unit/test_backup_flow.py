"""What the flow backup-vm makes of steps that end badly, repository by repository."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import backup_vm as module
from infra.errors import NoSpace, RepositoryLocked, RepositoryUnreachable
from tasks.destinations import Destination

JOB = cast("Any", SimpleNamespace(policy=SimpleNamespace(repository="main")))
READY = Destination("main", cast("Any", object()))


def preflight(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Destination:
    """What comes of a repository whose preflight ends with this error."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "preflight", fail)
    return module._prepare(JOB, cast("Any", None), READY)


def test_a_repository_that_hangs_in_preflight_is_given_up_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's time limit of the step, and an error of borg's, concern this repository alone."""
    assert isinstance(preflight(monkeypatch, TimeoutError("300 s")).error, RepositoryUnreachable)
    locked = RepositoryLocked("another borg")
    assert preflight(monkeypatch, locked).error is locked


def test_what_is_wrong_with_the_host_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space for overlays is no matter of one repository."""
    with pytest.raises(NoSpace):
        preflight(monkeypatch, NoSpace("overlays"))
