"""A receiver of webhooks and pings that keeps what it got."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.guests import wait_for


@dataclass
class Got:
    """One request."""

    path: str
    token: str
    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        """Everything that it told."""
        return f"{self.body.get('title', '')}\n{self.body.get('text', '')}"


@dataclass
class Receiver:
    """Where it listens, what it got, and the status that it answers with."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    status: int = 200

    def wait(self, *words: str, path: str = "/hook", timeout: float = 60) -> Got:
        """The first request to `path` that holds all these words."""

        def there() -> Got | None:
            found = [each for each in list(self.got) if each.path == path and all(word in str(each) for word in words)]
            return found[0] if found else None

        return wait_for(there, timeout=timeout, what=f"a request to {path} with {words}", interval=0.2)

    def count(self, *words: str) -> int:
        """How many requests hold all these words."""
        return sum(all(word in str(each) for word in words) for each in list(self.got))

    def pings(self) -> int:
        """How often the watchdog was called."""
        return len(self.pinged("/ping"))

    def overdue(self, period: float, path: str = "/ping") -> bool:
        """What a watchdog outside says that expects a call every so many seconds: none came for longer."""
        last = max(self.pinged(path), default=0.0)
        return time.monotonic() - last > period

    def pinged(self, path: str) -> list[float]:
        """When the watchdog was called, in seconds of the monotonic clock."""
        return [each.at for each in list(self.got) if each.path == path]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free loopback port for the length of the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self._take(json.loads(content))

        def do_GET(self) -> None:
            self._take({})

        def do_CONNECT(self) -> None:
            self._take({})  # somebody takes us for a proxy, and wants to reach a host outside

        def _take(self, body: dict[str, Any]) -> None:
            receiver.got.append(Got(self.path, self.headers.get("Authorization", ""), body))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
