"""A Prefect server as an administrator would start it: one for all tests that need none of their own."""

import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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
def running_server(home: Path) -> Iterator[str]:
    """A server with its state in `home` for the length of the block; yields the value of PREFECT_API_URL."""
    shutil.copyfile(TEMPLATE, home / "prefect.db")  # `make setup` has done the migrations
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "60",  # tests kill runs and go on
    }
    command = [str(PREFECT), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    log = home / "server.log"
    with log.open("wb") as output, spawn(command, env=environment, stdout=output, stderr=output) as server:
        url = f"http://127.0.0.1:{port}/api"
        wait_for(lambda: _answers(server, url, log), timeout=120, what="the Prefect server")
        yield url


def _answers(server: Child, url: str, log: Path) -> bool:
    assert server.poll() is None, log.read_text(errors="replace")[-2000:]
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - http to ourselves
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False
