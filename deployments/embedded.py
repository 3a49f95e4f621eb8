"""Prefect without a server: a temporary API for one command, that calls nobody and that nobody else may use.

A flow needs a Prefect API. PREFECT_API_URL or a Prefect profile names one; otherwise this module starts Prefect's
server application on a free loopback port, as Prefect's own "ephemeral mode" does, with two differences: it starts
beside the command's own work (Prefect starts it after importing the whole server a second time), and it asks for a
password that only this command knows. If it dies it is started anew: Prefect's client tries for a minute, so a run
goes on as if nothing had been. Its database is kept under `state_dir`; the migrations, 15 s of work, were done
by `make setup` into a template that is copied here.
"""

import http.client
import logging
import os
import secrets
import shutil
import socket
import ssl
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from infra.errors import ProcessError, StorageError
from infra.model import StateDir
from infra.process import Child, spawn

logger = logging.getLogger("vmborg.embedded")

TEMPLATE = Path(sys.prefix) / "share" / "vmborg" / "prefect.db"

_START_TIMEOUT_S = 120.0
_POLL_S = 0.05
_ANSWER_S = 20.0
_DRAIN_S = 10.0
_STARTS = 4
_QUIET = {
    # Both are needed: Prefect 3.8.8 still tries to send telemetry with the first one alone.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
}


def quiet_environment(console_level: str) -> None:
    """Set what Prefect reads from the environment; call it before the first import of prefect.

    What the caller's environment says already wins. `console_level` is the level of run logs on stderr.
    """
    for name, value in {**_QUIET, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": console_level}.items():
        os.environ.setdefault(name, value)


def configured_api() -> str:
    """The API that PREFECT_API_URL or the active Prefect profile names; "" for none."""
    named = os.environ.get("PREFECT_API_URL", "")
    if named:
        return named
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        profiles: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
    return str(profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL", ""))


@contextmanager
def prefect_api(state_dir: Path) -> Generator[Callable[[], None]]:
    """Have a Prefect API for the flows run in this block. Nothing is started when one is configured.

    Yields a function that waits until the API answers (it raises ProcessError): import prefect before it is called,
    which takes as long as the server's start, and after this block was entered, because prefect reads its address when
    it is imported.
    """
    if named := configured_api():
        _require_answer(named)
        yield lambda: None
        return
    home = StateDir(state_dir).prefect
    try:
        _place_database(home)
        (home / "server.log").write_bytes(b"")
    except OSError as error:
        raise StorageError(
            f"The temporary Prefect server cannot keep its files in {home}.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Make room on this file system (it is that of state_dir), and run vmborg as root.",
        ) from error
    port, password = _free_port(), f"vmborg:{secrets.token_urlsafe(16)}"
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = password
    with _Server(port, home).running() as server:
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        os.environ["PREFECT_API_AUTH_STRING"] = password
        try:
            yield server.wait_until_healthy
        finally:
            if server.alive:
                _hand_over()
            for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
                os.environ.pop(name, None)


class _Server:
    """The temporary server: started, and started anew when it dies."""

    def __init__(self, port: int, home: Path) -> None:
        self._port = port
        self._home = home
        self._log = home / "server.log"
        self._child: Child | None = None
        self._was_healthy = False
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Generator["_Server"]:
        """Keep it running during the block."""
        # The thread that starts a program has to outlive it: the parent-death signal of `spawn` is the thread's.
        keeper = threading.Thread(target=self._keep, name="prefect-server", daemon=True)
        keeper.start()
        try:
            yield self
        finally:
            self._over.set()
            keeper.join()

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._child is not None and self._child.poll() is None

    def wait_until_healthy(self) -> None:
        """Wait for its first answer. Raises ProcessError."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _healthy(self._port):
            ended = self._child is not None and not self.alive
            if ended or time.monotonic() > deadline:
                raise ProcessError(
                    "The temporary Prefect server did not start.",
                    evidence=self._log.read_text(encoding="utf-8", errors="replace")[-2000:],
                    remedy="Look at this log, run `make setup` again, or name a running server with PREFECT_API_URL.",
                )
            time.sleep(_POLL_S)
        self._was_healthy = True

    def _keep(self) -> None:
        for start in range(_STARTS):
            code = self._run_once()
            if self._over.is_set() or not self._was_healthy:
                return
            again = "starting it again" if start + 1 < _STARTS else "giving up; this run cannot be recorded"
            logger.warning("the temporary Prefect server died (exit code %d); %s", code, again)

    def _run_once(self) -> int:
        with (
            self._log.open("ab") as log,
            spawn(
                _server_command(self._port),
                env=_server_environment(self._home),
                stdout=log,
                stderr=log,
                own_session=True,
            ) as child,
        ):
            self._child = child
            while child.poll() is None and not self._over.wait(_POLL_S):
                pass
        return child.popen.returncode


def _require_answer(api: str) -> None:
    """Any answer will do: whether it lets us in, Prefect itself has to find out. Raises ProcessError."""
    try:
        urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=_ANSWER_S).close()  # noqa: S310 - as configured
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # Prefect has certificates of its own to trust
            return
        raise ProcessError(
            f"The Prefect server at {api} does not answer.",
            evidence=f"{api}: {reason}",
            remedy="Start it, correct PREFECT_API_URL or the Prefect profile, or unset it: vmborg then brings a server "
            "of its own.",
        ) from error


def _hand_over() -> None:
    """Send what Prefect still holds back: its log and event workers would wait a minute for a server that is gone."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - never import prefect just to end
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    APILogWorker.drain_all(timeout=_DRAIN_S)
    EventsWorker.drain_all(timeout=_DRAIN_S)


def _server_command(port: int) -> list[str]:
    return [
        sys.executable,
        *("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--log-level", "error", "--lifespan", "on"),
    ]  # fmt: skip


def _server_environment(home: Path) -> dict[str, str]:
    return {
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    }


def _place_database(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = home / "prefect.db"
    if database.exists() or not TEMPLATE.exists():
        return
    copy = home / f"prefect.{os.getpid()}"
    try:
        shutil.copyfile(TEMPLATE, copy)
        copy.chmod(0o600)
        # A link, for it never replaces: another command may have put its own there meanwhile, and have it open.
        with suppress(FileExistsError):
            database.hardlink_to(copy)
    finally:
        copy.unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
