"""Read a stream that nobody waits for."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_PATIENCE_S = 5.0  # for what is still on its way when the other stream has ended


class Drain:
    """Reads a stream in a thread of its own and keeps its end: a stream that nobody reads stops the other one."""

    def __init__(self, receive: Callable[[int], bytes], kept: int) -> None:
        self._receive = receive
        self._kept = kept
        self._blocks: deque[bytes] = deque(maxlen=max(1, kept // 1024))
        self._thread = threading.Thread(target=self._drain, name="ssh-drain", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                try:
                    block = self._receive(1024)
                except TimeoutError:  # silence here is no failure
                    continue
                if not block:
                    return
                if self._kept:
                    self._blocks.append(block)

    def finish(self) -> str:
        """Wait for the end of the stream; its last bytes as text."""
        self._thread.join(_PATIENCE_S)
        return b"".join(self._blocks).decode("utf-8", "replace").strip()
