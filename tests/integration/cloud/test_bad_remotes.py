"""Remotes that fail in the middle of a copy, or refuse for reasons of their own; and an installation without rclone."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load
from infra.errors_upkeep import ClockSkewed, RemoteDenied, RemoteUnreachable
from infra.process import run
from infra.rclone.command import Transfer
from tasks.cloud.copy import make_copy
from tasks.cloud.job import open_job
from tests.integration.cloud.site import HOUR, MIB, NOW, VM, Site

pytestmark = pytest.mark.integration

OLD, ALL = [VM.format(1), VM.format(2)], [VM.format(1), VM.format(2), VM.format(3)]
SKEWED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference between '
    b"the request time and the current time is too large.</Message></Error>"
)


def copy_and(site: Site, act: Callable[[], None]) -> None:
    """Copy a large new archive, slowly; when some of it is there, `act`. Raises what the copy raises."""
    site.back_up(3, size=24 * MIB)
    site.limits = {"bandwidth": "6M", "stall": "3s", "transfers": 1}
    job = open_job(load(site.path), "offsite", NOW)
    done = threading.Event()

    def teller(phase: str) -> Any:
        def tell(transfer: Transfer) -> None:
            if phase == "copying" and transfer.done > 8 * MIB and not done.is_set():
                done.set()
                act()

        return tell

    try:
        make_copy(job, start_over=False, allow_shrink=False, teller=teller)
    finally:
        assert done.is_set()
        site.limits = {}


def test_a_network_that_falls_silent(still: Site) -> None:
    """When nothing moves any more, the copy ends, by us or by rclone's own patience with each file, and can go on.

    The server of the rest is a new one: the one that was held serves half-read requests once it wakes, and answers 500
    for their objects as long as it lives.
    """
    with still.cloud.serving() as servers, still.cloud.later("s3") as serve_anew:
        still.copy(NOW - HOUR)
        with pytest.raises(RemoteUnreachable) as caught:
            copy_and(still, lambda: os.kill(servers["s3"].pid, signal.SIGSTOP))
        assert caught.value.transient
        told = ("nothing moved for", "timeout awaiting response headers")
        assert any(words in caught.value.evidence for words in told)
        servers["s3"].kill()
        serve_anew()
        assert still.fetch("before") == OLD
        assert still.copy(NOW + HOUR).size < 24 * MIB
        assert still.fetch("after") == ALL


def test_credentials_that_are_revoked_in_the_middle(still: Site) -> None:
    """What the remote has stays: the generation before is whole, and with new keys the copy goes on."""
    with still.cloud.serving() as servers:
        still.copy(NOW - HOUR)
        with still.cloud.later("s3", secret="new keys of the bucket") as serve_anew:

            def revoke() -> None:
                servers["s3"].kill()
                serve_anew()

            with pytest.raises(RemoteDenied) as caught:
                copy_and(still, revoke)
            assert "rclone.conf" in caught.value.remedy
            still.cloud.configure(secret="new keys of the bucket")
            assert still.fetch("before") == OLD
            still.copy(NOW + HOUR)
            assert still.fetch("after") == ALL


def test_a_bucket_that_is_full(still: Site) -> None:
    """An S3 server that fails without a word why may be full: the remedy says so; what was there can be fetched."""
    disk = still.cloud.served
    run(["mount", "-t", "tmpfs", "-o", "size=20m", "vmborg-test", str(disk)], timeout=10)
    try:
        (disk / "bucket").mkdir()
        with still.cloud.serving():
            still.copy(NOW - HOUR)
            still.back_up(3, size=12 * MIB)
            with pytest.raises(RemoteUnreachable) as caught:
                still.copy()
            assert "InternalError" in caught.value.evidence
            assert "whether its server has room" in caught.value.remedy
            assert still.fetch("before") == OLD
    finally:
        run(["umount", str(disk)], timeout=10)


class _Refusing(BaseHTTPRequestHandler):
    """Answers each request as S3 answers one whose time is wrong (S3 API reference: error responses)."""

    def _answer(self) -> None:
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(SKEWED)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(SKEWED)

    do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """It needs no log."""


@contextmanager
def refusing_clock() -> Iterator[int]:
    """A server with S3's answer to a wrong clock; yields its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_remote_that_has_another_time(still: Site) -> None:
    """A server that refuses our clock is no matter of credentials: the error says which clock, and how to set it."""
    with refusing_clock() as port:
        still.cloud.configure(s3_port=port)
        with pytest.raises(ClockSkewed) as caught:
            still.copy()
    assert "RequestTimeTooSkewed" in caught.value.evidence
    assert "timedatectl" in caught.value.remedy


def test_rclone_that_is_not_installed(site: Site, tmp_path: Path) -> None:
    """The error names the program and how it comes back; nothing was copied."""
    site.check(datetime.now(UTC))
    without = tmp_path / "without-rclone"
    (without / "bin").mkdir(parents=True)
    here = Path(sys.prefix)
    for name in ("pyvenv.cfg", "lib"):
        (without / name).symlink_to(here / name)
    for name in ("python", "borg"):
        (without / "bin" / name).symlink_to(here / "bin" / name)
    code = "import sys; from deployments.cli.main import main; sys.exit(main(sys.argv[1:]))"
    argv = [str(without / "bin/python"), "-c", code, "--config", str(site.path), "sync"]
    done = run(argv, timeout=120, check=False)
    assert done.returncode == 1
    assert f"{without}/bin/rclone cannot be started." in done.stderr
    assert "make setup" in done.stderr
    assert site.cloud.content() == {}
