"""A Prefect server as an administrator would start it: one for all tests that need none of their own."""

import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from deployments.embedded import TEMPLATE
from infra.process import Child, spawn
from tests.guests import wait_for

PREFECT = Path(sys.executable).with_name("prefect")


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The value of PREFECT_API_URL for a server on a free loopback port; it ends with the session."""
    with running_server(tmp_path_factory.mktemp("prefect")) as api:
        yield api


@contextmanager
def running_server(home: Path, *, port: int = 0) -> Iterator[str]:
    """A server with its state in `home` for the length of the block; yields the value of PREFECT_API_URL.

    It listens on loopback on a free port, on this one if it is free.
    """
    shutil.copyfile(TEMPLATE, home / "prefect.db")  # `make setup` has done the migrations
    server = PrefectServer(
        home,
        {
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        },
        port=port,
    )
    server.start()
    try:
        yield server.api
    finally:
        server.stop()


class PrefectServer:
    """A server on loopback, on this port if it is free; its state in `home`. Started, stopped, killed at will."""

    def __init__(self, home: Path, settings: Mapping[str, str | None], *, port: int = 0) -> None:
        self.port = _free_port(port)
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.log = home / "server.log"
        self._stack = ExitStack()
        self._child: Child | None = None
        self._environment = {
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_HOME": str(home),
            "PREFECT_UI_API_URL": self.api,  # else its pages ask port 4200
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
            "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "60",  # tests kill runs and go on
            **settings,
        }

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Start it and wait for its first answer."""
        command = [str(PREFECT), "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        output = self._stack.enter_context(self.log.open("ab"))
        # In a session of its own it does not get the Ctrl-C that is meant for whoever runs it.
        server = spawn(command, env=self._environment, stdout=output, stderr=output, own_session=True)
        self._child = child = self._stack.enter_context(server)
        wait_for(lambda: _answers(child, self.api, self.log), timeout=120, what="the Prefect server")

    def stop(self) -> None:
        """End it as a service manager does."""
        self._stack.close()

    def kill(self) -> None:
        """End it without a word."""
        assert self._child is not None
        self._child.kill()
        self._stack.close()


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("no port is free")


def _answers(server: Child, url: str, log: Path) -> bool:
    assert server.poll() is None, log.read_text(errors="replace")[-2000:]
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - http to ourselves
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False
