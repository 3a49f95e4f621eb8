"""Host keys are pinned and compared; keys, users, ports and hosts that are wrong are told apart."""

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import HostKeyChanged, HostKeyUnknown, HostUnreachable, LoginRefused, VmborgError
from infra.ssh.connection import connect
from infra.ssh.endpoint import parse_host_key
from tasks.dumps.hosts import endpoint
from tasks.job import load_config
from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import Sshd, free_port, keygen, sshd

pytestmark = pytest.mark.integration

ECHO = [{"kind": "command", "command": "echo whole"}]


@pytest.fixture(scope="module")
def other(folder: Path) -> Iterator[Sshd]:
    """Another SSH server, with another host key, that lets the same client in."""
    root = folder / "other"
    root.mkdir()
    for name in ("client", "client.pub"):
        shutil.copy(folder / "sshd" / name, root / name)
    with sshd(root) as found:
        yield found


def refused(place: Place) -> VmborgError:
    """What logging in ends with."""
    with pytest.raises(VmborgError) as caught, connect(endpoint(load_config(str(place.config)), "db")):
        pass
    return caught.value


def test_an_unknown_key_is_refused_and_never_added(place: Place) -> None:
    """Without a pin nothing is sent to the host, however often it is tried, and no pin comes to be."""
    place.configure(ECHO)
    pin = place.state / "dumps" / "db" / "host_key"
    pin.unlink()
    for _ in range(2):
        assert isinstance(refused(place), HostKeyUnknown)
    assert not pin.exists()


def test_a_changed_key_is_refused_with_both_fingerprints(place: Place, ssh: Sshd, other: Sshd) -> None:
    """Another server in the place of the pinned one: exit 1, both fingerprints are shown, nothing runs there."""
    place.initialise()
    marker = place.root / "it ran"
    place.configure([{"kind": "command", "command": f"touch '{marker}'; echo x"}], port=other.port)
    call = place.run("--json", "dumps", "pull", "db")
    error = call.document["pulls"][0]["error"]
    assert (call.code, error["type"]) == (1, "HostKeyChanged")
    assert ssh.fingerprint() in error["evidence"]
    assert other.fingerprint() in error["evidence"]
    assert not marker.exists()
    assert place.archives() == []


def test_trust_asks_and_shows(place: Place, ssh: Sshd, other: Sshd) -> None:
    """Trust shows the fingerprint (and the one pinned before), pins only when told to, and says what is pinned."""
    place.configure(ECHO, port=other.port)
    pin = place.state / "dumps" / "db" / "host_key"
    before = pin.read_text()
    unanswered = place.run("dumps", "trust", "db")
    assert unanswered.code == 1
    assert other.fingerprint() in unanswered.stderr
    assert ssh.fingerprint() in unanswered.stderr
    assert pin.read_text() == before
    told = place.run("--json", "dumps", "trust", "db", "--yes")
    assert told.document["keys"][0]["fingerprint"] == other.fingerprint()
    assert parse_host_key(pin.read_text()).fingerprint == other.fingerprint()
    assert "is pinned already" in place.run("dumps", "trust", "db").stdout


def test_a_key_in_the_configuration_is_a_pin(place: Place, ssh: Sshd, other: Sshd) -> None:
    """host_key in the configuration is what counts, whatever was pinned by trust."""
    place.configure(ECHO, host_key=Path(f"{other.host_key}.pub").read_text().strip())
    assert isinstance(refused(place), HostKeyChanged)
    place.configure(ECHO, host_key=Path(f"{ssh.host_key}.pub").read_text().strip())
    with connect(endpoint(load_config(str(place.config)), "db")):
        pass


def test_a_wrong_key_or_user_is_refused(place: Place, tmp_path: Path) -> None:
    """A key that the host does not know, and a user that it does not have, are LoginRefused with a remedy."""
    stranger = keygen(tmp_path / "stranger")
    for changed in ({"key": str(stranger)}, {"user": "nobody-of-this-name"}):
        place.configure(ECHO, **changed)
        error = refused(place)
        assert isinstance(error, LoginRefused)
        assert "authorized_keys" in error.remedy


def test_a_key_that_cannot_be_used_is_told(place: Place, ssh: Sshd, tmp_path: Path) -> None:
    """A key that is missing, open to all, no key, or locked without its passphrase is LoginRefused; nothing leaks."""
    open_to_all = tmp_path / "open"
    shutil.copy(ssh.client_key, open_to_all)
    open_to_all.chmod(0o644)
    nonsense = tmp_path / "nonsense"
    nonsense.touch(mode=0o600)
    nonsense.write_text("hunter2")
    locked = keygen(tmp_path / "locked", "a passphrase")
    for key, said in (
        (tmp_path / "missing", "No such file"),
        (open_to_all, "everybody has access"),
        (nonsense, "nonsense"),
        (locked, "key_passphrase"),
    ):
        place.configure(ECHO, key=str(key))
        error = refused(place)
        assert isinstance(error, LoginRefused)
        assert said in str(error)
        assert "hunter2" not in str(error)


def test_a_key_with_a_passphrase_opens(place: Place, ssh: Sshd, tmp_path: Path) -> None:
    """A key with a passphrase works when key_passphrase says where that is; a wrong one is LoginRefused."""
    locked = keygen(tmp_path / "locked", "a passphrase")
    secret = tmp_path / "key-passphrase"
    secret.touch(mode=0o600)
    secret.write_text("a passphrase\n")
    before = ssh.authorized.read_text()
    ssh.authorized.write_text(before + Path(f"{locked}.pub").read_text())
    try:
        place.configure(ECHO, key=str(locked), key_passphrase={"file": str(secret)})
        with connect(endpoint(load_config(str(place.config)), "db")):
            pass
        secret.write_text("another\n")
        assert isinstance(refused(place), LoginRefused)
    finally:
        ssh.authorized.write_text(before)


def test_a_host_that_is_down_or_no_ssh_server_is_unreachable(place: Place) -> None:
    """A closed port, a port where something else speaks, one that says nothing, a name nobody has: HostUnreachable."""
    with socket.create_server(("127.0.0.1", 0)) as babbling, socket.create_server(("127.0.0.1", 0)) as silent:

        def babble() -> None:
            peer, _ = babbling.accept()
            with peer:
                peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 200)

        speaker = threading.Thread(target=babble, daemon=True)
        speaker.start()
        for changed in (
            {"port": free_port()},
            {"port": babbling.getsockname()[1]},
            {"port": silent.getsockname()[1]},
            {"address": "no-such-host.invalid"},
        ):
            place.configure(ECHO, connect_timeout="1s", **changed)
            error = refused(place)
            assert isinstance(error, HostUnreachable)
            assert error.transient
            assert error.evidence
        speaker.join()


def test_a_jump_host_is_gone_through_and_pinned_too(place: Place, other: Sshd) -> None:
    """Through a jump host both keys are compared: neither an unpinned jump host nor a changed one is gone through."""
    place.configure(ECHO, jump={"address": "127.0.0.1", "port": other.port, "user": "root"})
    assert isinstance(refused(place), HostKeyUnknown)
    assert place.run("dumps", "trust", "db", "--yes").code == 0
    with connect(endpoint(load_config(str(place.config)), "db")) as connection:
        received = bytearray()
        ended = connection.receive("echo $SSH_CONNECTION", received.extend, stall_s=10, deadline_s=10)
    assert ended.exit_code == 0
    assert received.split()[3].decode() == str(place.ssh.port)
    jump = place.state / "dumps" / "db" / "jump_host_key"
    jump.write_text((place.state / "dumps" / "db" / "host_key").read_text())
    assert isinstance(refused(place), HostKeyChanged)


def test_an_unknown_host_is_a_usage_error(place: Place) -> None:
    """A host that the configuration does not have is answered with those that it has, and exit code 2."""
    for words in (("pull", "dv"), ("trust", "dv"), ("guest-setup", "dv")):
        call = place.run("--json", "dumps", *words)
        assert (call.code, call.document["error"]["type"]) == (2, "UsageError")
        assert "db" in call.voices()[1]
