"""Where to connect, as whom, and which key the other side has to show. Pure."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public host key."""

    kind: str  # ssh-ed25519
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: `SHA256:…`."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        """As in authorized_keys and known_hosts, without a comment."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


def parse_host_key(text: str) -> HostKey:
    """`ssh-ed25519 AAAA…`, with or without a comment. Raises ValueError."""
    words = text.split()
    if len(words) not in {2, 3}:
        raise ValueError("a public key has a type and a text in Base64")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error as error:
        raise ValueError("the key is not in Base64") from error
    kind = words[0].encode()
    if blob[: 4 + len(kind)] != len(kind).to_bytes(4, "big") + kind:
        raise ValueError(f"the key is not of the type {words[0]}")
    return HostKey(words[0], blob)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One SSH server and how to log in there."""

    name: str  # what people call it
    address: str
    port: int
    user: str
    key: Path | None  # None: the keys of the SSH agent
    passphrase: str | None = field(default=None, repr=False)
    pinned: HostKey | None = None
    connect_timeout: float = 15.0  # seconds, for connecting and for logging in
    jump: "Endpoint | None" = None

    @property
    def place(self) -> str:
        """`address port 22`, for evidence."""
        return f"{self.address} port {self.port}" + (f" through {self.jump.place}" if self.jump else "")
