"""A headless Chromium, driven through its DevTools protocol as a person drives it: addresses, clicks, keys, looking.

Of the protocol (https://chromedevtools.github.io/devtools-protocol/) it takes so little that no driver is needed; the
websockets library is there because Prefect has it.
"""

import base64
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

import httpx
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from infra.process import spawn
from tests.guests import wait_for

_NAMES = (
    "/usr/lib/chromium/chromium-headless-shell",
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)
_ANSWER_S = 30
_WIDTH = 1360
_FIND = """
(() => {
  const shown = element => { const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const found = [...document.querySelectorAll(%s)].filter(shown).filter(each => %s);
  if (!found.length) return null;
  found[0].scrollIntoView({block: "center"});
  const box = found[0].getBoundingClientRect();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  return found[0].contains(document.elementFromPoint(x, y)) ? [x, y] : null;
})()"""


class Browser:
    """One page of a browser."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.errors: list[str] = []  # exceptions that scripts of the page did not catch

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=_ANSWER_S))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def look(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        """Go there; what the page draws later is waited for by `wait_text`."""
        self._ask("Page.navigate", url=address)

    @property
    def text(self) -> str:
        """Everything that can be read on the page now."""
        return self.look("document.body ? document.body.innerText : ''") or ""

    def wait_text(self, *words: str, timeout: float = 30) -> str:
        """Wait until all of them can be read; the whole text then."""

        def there() -> str:
            text = self.text
            return text if all(word in text for word in words) else ""

        try:
            return wait_for(there, timeout=timeout, what=f"{words} on the page", interval=0.2)
        except Exception as error:
            error.add_note(f"the page says:\n{self.text[:3000]}")
            raise

    def click(self, selector: str, text: str = "") -> None:
        """Click the first visible element of this CSS selector that holds this text, once there is one."""
        condition = f"each.innerText.includes({json.dumps(text)})"
        where = _FIND % (json.dumps(selector), condition)
        seen: list[Any] = [None]

        def at_rest() -> Any:
            seen.append(self.look(where))  # what is still being drawn moves away under the mouse
            return seen[-1] if seen[-1] == seen[-2] else None

        x, y = wait_for(at_rest, timeout=30, what=f"{selector} {text!r}", interval=0.2)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self._ask("Input.insertText", text=text)

    def photograph(self, path: Path, *, height: int = 900, moving: bool = False) -> None:
        """A PNG of the page once nothing on it moves, or at once where something always does: a clock."""
        self._ask("Emulation.setDeviceMetricsOverride", width=_WIDTH, height=height, deviceScaleFactor=1, mobile=False)
        shots: list[str] = []

        def still() -> bool:
            shots.append(self._ask("Page.captureScreenshot", format="png")["data"])
            return len(shots) > 1 and (moving or shots[-1] == shots[-2])

        wait_for(still, timeout=30, what="a page that stands still", interval=0.5)
        path.write_bytes(base64.b64decode(shots[-1]))


@contextmanager
def browsing(home: Path) -> Iterator[Browser]:
    """A browser with nothing in it, its files in `home`."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    assert program, f"none of {_NAMES} is installed; `make setup` installs one"
    profile = home / "browser"
    command = [
        program,
        "--headless",
        "--no-sandbox",  # the tests run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        f"--window-size={_WIDTH},900",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    log = home / "browser.log"
    with log.open("wb") as output, _in_a_group(command, output):
        port_file = profile / "DevToolsActivePort"
        port = wait_for(lambda: _first_line(port_file), timeout=60, what="the browser")
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=_ANSWER_S).json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=2**26, open_timeout=_ANSWER_S) as socket:
            browser = Browser(socket)
            browser._ask("Page.enable")
            browser._ask("Runtime.enable")
            yield browser


@contextmanager
def _in_a_group(command: list[str], output: IO[bytes]) -> Iterator[None]:
    """Run it with everything that it starts: Debian's `chromium` is a script, whose end the browser outlives."""
    with spawn(command, stdout=output, stderr=output, own_session=True) as child:
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _first_line(path: Path) -> str:
    return path.read_text().partition("\n")[0] if path.exists() else ""
