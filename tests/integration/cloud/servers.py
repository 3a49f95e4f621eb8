"""Remotes of rclone's own making on loopback: S3, SFTP, and a crypt remote over either; and what can happen to them."""

import hashlib
import socket
from collections.abc import Iterator
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
        secret = self.root / "serve.conf"
        secret.write_text("")
        commands = {
            "s3": ["--auth-key", f"{KEY},{SECRET}", "--addr", f"127.0.0.1:{self.s3_port}"],
            "sftp": ["--user", "vmborg", "--pass", "a passphrase", "--addr", f"127.0.0.1:{self.sftp_port}"],
        }
        wanted = protocols or ("s3",)
        with ExitStack() as stack:
            log = stack.enter_context((self.root / "server.log").open("ab"))
            servers: dict[str, Child] = {}
            for protocol in wanted:
                argv = [binary(), "serve", protocol, *commands[protocol], "--config", str(secret), str(self.served)]
                servers[protocol] = stack.enter_context(spawn(argv, stdout=log, stderr=log, own_session=True))
            for port in (self.s3_port if protocol == "s3" else self.sftp_port for protocol in wanted):
                wait_for(partial(answers, port), timeout=20, what="rclone serve", interval=0.05)
            yield servers

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
