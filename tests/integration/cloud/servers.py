"""Remotes of rclone's own making on loopback: S3, SFTP, and a crypt remote over either; and what can happen to them."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from infra.process import Child, run, spawn
from infra.rclone.command import binary
from tests.guests import wait_for

KEY, SECRET = "ACCESSKEYID1", "secretkey1secretkey1"


def free_port() -> int:
    """A TCP port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Cloud:
    """A folder that rclone serves as S3 and as SFTP, and the rclone.conf of a client."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.served = root / "served"
        self.config = root / "rclone.conf"
        self.s3_port, self.sftp_port = free_port(), free_port()
        (self.served / "bucket").mkdir(parents=True)
        self.configure()

    def configure(self, secret: str = SECRET, s3_port: int | None = None) -> None:
        """Write rclone.conf; with another secret its keys are those of a user who was thrown out."""
        self.config.touch(mode=0o600)
        hidden = run([binary(), "obscure", "a passphrase"], timeout=30).stdout.strip()
        self.config.write_text(
            f"[s3]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{s3_port or self.s3_port}\n"
            f"access_key_id = {KEY}\nsecret_access_key = {secret}\n\n"
            f"[sftp]\ntype = sftp\nhost = 127.0.0.1\nport = {self.sftp_port}\nuser = vmborg\n"
            f"pass = {hidden}\nshell_type = none\ndisable_hashcheck = true\n\n"
            f"[crypt]\ntype = crypt\nremote = s3:bucket/crypt\npassword = {hidden}\n"
        )

    @contextmanager
    def serving(self, *protocols: str) -> Iterator[dict[str, Child]]:
        """Serve the folder, by default as S3 alone; the servers by their protocol."""
        with ExitStack() as stack:
            yield {protocol: self._serve(stack, protocol, SECRET) for protocol in protocols or ("s3",)}

    @contextmanager
    def later(self, protocol: str, *, secret: str = SECRET) -> Iterator[Callable[[], None]]:
        """Yields what starts a server in place of one that was ended, with those keys; it ends with the block.

        A thread of its own starts it: a child ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG).
        """
        wanted, there, over = threading.Event(), threading.Event(), threading.Event()

        def serve() -> None:
            wanted.wait()
            with ExitStack() as stack:
                if not over.is_set():
                    self._serve(stack, protocol, secret)
                there.set()
                over.wait()

        def start() -> None:
            wanted.set()
            there.wait(30)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield start
        finally:
            over.set()
            wanted.set()
            thread.join()

    def _serve(self, stack: ExitStack, protocol: str, secret: str) -> Child:
        conf = self.root / "serve.conf"
        conf.write_text("")
        port = self.s3_port if protocol == "s3" else self.sftp_port
        options = {
            "s3": ["--auth-key", f"{KEY},{secret}"],
            "sftp": ["--user", "vmborg", "--pass", "a passphrase"],
        }[protocol]
        argv = [binary(), "serve", protocol, *options, "--addr", f"127.0.0.1:{port}", "--config", str(conf)]
        log = stack.enter_context((self.root / "server.log").open("ab"))
        server = stack.enter_context(spawn([*argv, str(self.served)], stdout=log, stderr=log, own_session=True))
        wait_for(partial(answers, port), timeout=20, what="rclone serve", interval=0.05)
        return server

    def content(self) -> dict[str, str]:
        """Every file of the remote with its SHA-256: what `no worse` means."""
        return {
            str(path.relative_to(self.served)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.served.rglob("*"))
            if path.is_file()
        }

    def delete(self, place: str) -> None:
        """Somebody deletes a file or a folder by hand, with the same keys; the server must be told, for it caches."""
        for command in ("deletefile", "purge"):
            run([binary(), command, place, "--config", str(self.config)], timeout=60, check=False)
