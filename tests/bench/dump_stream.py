"""One stream in a process of its own, written and digested: python -m tests.bench.dump_stream SETTINGS."""

import hashlib
import json
import sys
import time
from pathlib import Path

from infra.ssh.connection import connect
from infra.ssh.endpoint import Endpoint, parse_host_key


def main(text: str) -> None:
    """Receive the file `dump`, print the seconds that it took."""
    settings = json.loads(text)
    root = Path(settings["root"])
    pinned = parse_host_key(Path(settings["host"]).read_text(encoding="utf-8"))
    place = Endpoint("bench", "127.0.0.1", settings["port"], "root", Path(settings["key"]), pinned=pinned)
    digest = hashlib.sha256()
    target = root / "ours"
    begun = time.monotonic()
    with target.open("wb", buffering=0) as file, connect(place) as link:

        def sink(block: bytes) -> None:
            file.write(block)
            digest.update(block)

        ended = link.receive(f"cat {root / 'dump'}", sink, stall_s=60, deadline_s=600)
    seconds = time.monotonic() - begun
    if ended.exit_code != 0 or target.stat().st_size != (root / "dump").stat().st_size:
        raise RuntimeError(f"the stream ended with {ended}")
    target.unlink()
    print(seconds)


if __name__ == "__main__":
    main(sys.argv[1])
