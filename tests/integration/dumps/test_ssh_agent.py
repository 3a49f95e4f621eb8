"""Without a key in the configuration those of an SSH agent log in: a real agent, a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import LoginRefused, VmborgError
from infra.process import run, spawn
from infra.ssh.connection import connect
from tasks.dumps.hosts import endpoint
from tasks.job import load_config
from tests.guests import wait_for
from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import keygen
from tests.integration.dumps.taking import take

pytestmark = pytest.mark.integration


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The socket of an SSH agent without keys, in the environment."""
    socket = tmp_path / "agent"
    with spawn(["ssh-agent", "-D", "-a", str(socket)]):
        wait_for(socket.exists, timeout=10, what="the SSH agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield socket


def add(key: Path) -> None:
    """Give the agent a key."""
    run(["ssh-add", "-q", str(key)], timeout=10)


def refused(place: Place) -> VmborgError:
    """What logging in ends with."""
    with pytest.raises(VmborgError) as caught, connect(endpoint(load_config(str(place.config)), "db")):
        pass
    return caught.value


@pytest.mark.usefixtures("agent")
def test_a_key_of_the_agent_logs_in(place: Place, tmp_path: Path) -> None:
    """A source of a host without `key` is dumped by the agent's keys, one after the other, until one is let in."""
    place.configure([{"kind": "command", "command": "echo whole"}], key=None)
    add(keygen(tmp_path / "stranger"))
    add(place.ssh.client_key)
    (source,) = take(place)
    assert source.good
    assert (place.latest / "command.dump").read_text() == "whole\n"


@pytest.mark.usefixtures("agent")
def test_an_agent_that_helps_nobody_is_told(place: Place, tmp_path: Path) -> None:
    """No agent, no key in it, none that is let in, more than the server tries: LoginRefused, and what to do."""
    place.configure([{"kind": "command", "command": "echo whole"}], key=None)
    empty = refused(place)
    assert isinstance(empty, LoginRefused)
    assert "the agent has no key" in empty.evidence
    for number in range(7):  # MaxAuthTries is 6
        add(keygen(tmp_path / f"stranger{number}"))
    add(place.ssh.client_key)
    many = refused(place)
    assert isinstance(many, LoginRefused)
    assert not many.transient
    assert "`key`" in many.remedy
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSH_AUTH_SOCK")
        none = refused(place)
    assert isinstance(none, LoginRefused)
    assert "SSH_AUTH_SOCK" in none.evidence
