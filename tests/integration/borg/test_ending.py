"""A create that does not come to its end leaves no archive, and at most a lock that the next borg clears."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.borg.client import Repository
from infra.borg.command import binary, environment
from infra.borg.messages import ArchiveProgress
from infra.errors import BorgError
from infra.process import run
from tests.integration.borg.conftest import MIB, PASSPHRASE, borg_child, borgs, content, lock_files, names, store

pytestmark = pytest.mark.integration


def all_names(repository: Repository) -> str:
    """Every archive, those among them that borg hides (NAME.checkpoint)."""
    argv = [binary(), "list", "--short", "--consider-checkpoints", repository.location]
    env = environment(repository.target)
    return run(argv, timeout=60, env=env, secrets={"BORG_PASSPHRASE_FD": PASSPHRASE}).stdout


def once(action: Callable[[], object]) -> Callable[[ArchiveProgress], None]:
    """A listener that acts at the first progress beyond the beginning."""
    done: list[bool] = []

    def listen(progress: ArchiveProgress) -> None:
        if progress.original_size and not done:
            done.append(True)
            action()

    return listen


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file that takes borg a while."""
    return content(tmp_path / "big", size=300 * MIB)


def test_stop(repository: Repository, big: Path) -> None:
    """`stop` ends the copy soon: the result says so, and neither an archive nor a lock is left."""
    stop = threading.Event()
    result = store(repository, "a.unfinished", big, on_progress=once(stop.set), stop=stop)
    assert result.stopped
    assert lock_files(repository) == []
    assert all_names(repository) == ""


def test_stop_before_the_start(repository: Repository, big: Path) -> None:
    """A `stop` that is set already ends it too."""
    stop = threading.Event()
    stop.set()
    assert store(repository, "a.unfinished", big, stop=stop).stopped
    assert all_names(repository) == ""


def test_borg_killed(repository: Repository, big: Path) -> None:
    """When borg is killed, the error says so; the next borg clears its lock, and there is no archive."""
    with pytest.raises(BorgError) as caught:
        store(repository, "a.unfinished", big, on_progress=once(lambda: os.kill(borg_child(), signal.SIGKILL)))
    assert "SIGKILL" in caught.value.evidence
    assert "memory" in caught.value.remedy
    assert lock_files(repository) != []
    assert names(repository) == []
    assert lock_files(repository) == []
    assert all_names(repository) == ""


def test_borg_terminated(repository: Repository, big: Path) -> None:
    """SIGTERM from somebody else is no success and no archive."""
    with pytest.raises(BorgError) as caught:
        store(repository, "a.unfinished", big, on_progress=once(lambda: os.kill(borg_child(), signal.SIGTERM)))
    assert "ended from outside" in caught.value.brief
    assert all_names(repository) == ""


def test_listener_that_fails(repository: Repository, big: Path) -> None:
    """What a listener raises ends borg at once and is raised; no borg is left."""

    def fail() -> None:
        raise RuntimeError("the listener's own")

    with pytest.raises(RuntimeError, match="the listener's own"):
        store(repository, "a.unfinished", big, on_progress=once(fail))
    assert all_names(repository) == ""
    assert borgs() == []


def test_terminals_signals_do_not_reach_borg(repository: Repository, big: Path) -> None:
    """borg is in a session of its own: on SIGINT it would save a NAME.checkpoint, which lists do not show."""
    sessions: list[int] = []
    store(repository, "a", big, on_progress=once(lambda: sessions.append(os.getsid(borg_child()))))
    assert sessions
    assert os.getsid(0) not in sessions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_we_end(repository: Repository, big: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C on the terminal, or our own sudden death, takes borg along and leaves no archive of any kind."""
    started = tmp_path / "started"
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from infra.borg.client import Repository
        from tests.integration.borg.conftest import borg_child
        def tell(progress):
            if progress.original_size and not Path({str(started)!r}).exists():
                Path({str(started)!r}).write_text(str(borg_child()))
        repository = Repository(
            name="main", location={repository.location!r}, passphrase={PASSPHRASE!r}, encryption="repokey",
            compression="lz4", base_dir=Path({str(repository.target.base_dir)!r}), lock_wait=1,
        )
        repository.create("a.unfinished", [{str(big)!r}], comment="", files_cache_suffix="x", on_progress=tell)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stderr=subprocess.PIPE) as ours:
        _wait_for(lambda: started.exists() and started.read_text() != "")
        os.killpg(ours.pid, number)  # as a terminal does: the whole foreground group
        ours.communicate(timeout=60)
    assert ours.returncode != 0
    _wait_for(lambda: not Path("/proc", started.read_text()).exists())
    assert names(repository) == []
    assert all_names(repository) == ""


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
