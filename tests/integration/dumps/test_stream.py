"""A long stream: new keys in its middle neither stall nor break it, and it takes no memory."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.ssh import connection
from infra.ssh.connection import connect
from infra.ssh.endpoint import Endpoint, parse_host_key
from tests.integration.dumps.servers import Sshd, sshd

pytestmark = pytest.mark.integration

MIB = 1024**2
SIZE = 192 * MIB
STREAM = f"head -c {SIZE} /dev/zero | openssl enc -aes-128-ctr -nosalt -K {'0' * 32} -iv {'0' * 32}"


@pytest.fixture(scope="module")
def renewing(folder: Path) -> Iterator[Sshd]:
    """A server that asks for new keys every 16 MiB."""
    with sshd(folder / "renewing", options=["RekeyLimit 16M"]) as found:
        yield found


def endpoint(server: Sshd) -> Endpoint:
    """The server, its key pinned."""
    pinned = parse_host_key(Path(f"{server.host_key}.pub").read_text())
    return Endpoint("test", "127.0.0.1", server.port, "root", server.client_key, pinned=pinned)


def receive(server: Sshd) -> tuple[str, int]:
    """The stream's checksum and length."""
    digest, count = hashlib.sha256(), 0

    def sink(block: bytes) -> None:
        nonlocal count
        digest.update(block)
        count += len(block)

    with connect(endpoint(server)) as link:
        ended = link.receive(STREAM, sink, stall_s=60, deadline_s=300)
    assert ended.exit_code == 0
    return digest.hexdigest(), count


def test_new_keys_in_the_middle_do_no_harm(renewing: Sshd, ssh: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys renewed a dozen times, by the server and by us, and not at all: each time the same bytes, whole."""
    plain = receive(ssh)
    assert plain[1] == SIZE
    assert receive(renewing) == plain
    monkeypatch.setattr(connection, "REKEY_BYTES", 16 * MIB)
    assert receive(ssh) == plain


def test_no_keys_are_renewed_before_they_have_to_be(ssh: Sshd) -> None:
    """paramiko's own limit of 512 MiB is lifted to that of AES-GCM, and AES-GCM is what is used."""
    with connect(endpoint(ssh)) as link:
        transport = link._transport
        assert transport.packetizer.REKEY_BYTES == 2**36
        assert "gcm" in transport.remote_cipher  # pyright: ignore[reportAttributeAccessIssue]


def test_a_long_stream_takes_no_memory(ssh: Sshd) -> None:
    """192 MiB pass through with less than 48 MiB more than before."""
    process = psutil.Process()
    peak = before = process.memory_info().rss

    def sink(_: bytes) -> None:
        nonlocal peak
        peak = max(peak, process.memory_info().rss)

    with connect(endpoint(ssh)) as link:
        link.receive(STREAM, sink, stall_s=60, deadline_s=300)
    assert peak - before < 48 * MIB
