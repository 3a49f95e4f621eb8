"""A connection to an SSH server, and the only module that imports paramiko.

What paramiko leaves to its users is settled here (tried with paramiko 5.1 and OpenSSH 9.2):

- The host key is compared before anything is sent that names a user. An unknown key is never taken.
- AES-GCM comes first: paramiko's own order begins with aes128-ctr, a tenth as fast. Window and packet stay as they are;
  larger ones made no stream faster and the renewal of keys stall.
- paramiko asks for new keys every 512 MiB, and such a stream may stall. AES-GCM needs new keys after 64 GiB (OpenSSH:
  RekeyLimit), so they are asked for no earlier; and no byte within `stall_s` ends any stream.
"""

import logging
import socket
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import paramiko

from infra.errors import ConnectionLost, SshError
from infra.ssh.drain import Drain
from infra.ssh.endpoint import Endpoint, HostKey
from infra.ssh.group import membership
from infra.ssh.refusals import key_changed, key_unusable, login_refused, not_pinned, unreachable

logger = logging.getLogger("vmborg.ssh")
# It logs what it raises as well, with tracebacks.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)

SftpClient = paramiko.SFTPClient
SftpAttributes = paramiko.SFTPAttributes

REKEY_BYTES = 2**36
_BLOCK = 128 * 1024
_STDERR_BYTES = 16 * 1024
_KEEPALIVE_S = 15
_SHUTDOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended on the other side."""

    exit_code: int  # -1: killed by a signal
    errors: str  # the end of what it wrote on its standard error


def scan(endpoint: Endpoint) -> HostKey:
    """The key that the server shows, without logging in there. A jump host on the way has to be pinned.

    Raises HostUnreachable, and what `connect` raises about the jump host.
    """
    with ExitStack() as closing:
        return _shown(_start(endpoint, closing))


@contextmanager
def connect(endpoint: Endpoint) -> "Generator[Connection]":
    """Log in. Raises HostUnreachable, HostKeyUnknown, HostKeyChanged, LoginRefused."""
    with ExitStack() as closing:
        yield Connection(_connected(endpoint, closing), endpoint)


def _connected(endpoint: Endpoint, closing: ExitStack) -> paramiko.Transport:
    if endpoint.pinned is None:
        raise not_pinned(endpoint)
    transport = _start(endpoint, closing)
    shown = _shown(transport)
    if shown != endpoint.pinned:
        raise key_changed(endpoint, endpoint.pinned, shown)
    _log_in(transport, endpoint)
    transport.set_keepalive(_KEEPALIVE_S)
    return transport


def _start(endpoint: Endpoint, closing: ExitStack) -> paramiko.Transport:
    """Connect and exchange keys."""
    try:
        transport = paramiko.Transport(_socket(endpoint, closing))
    except (OSError, paramiko.SSHException, EOFError) as error:
        raise unreachable(endpoint, error) from error
    closing.callback(_close, transport)
    closing.enter_context(membership(transport.close))
    transport.packetizer.REKEY_BYTES = REKEY_BYTES
    transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = endpoint.connect_timeout
    options = transport.get_security_options()
    options.ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)
    if endpoint.pinned is not None:  # the server shows the first kind of key that it has
        kind = endpoint.pinned.kind.removeprefix("ssh-")
        options.key_types = sorted(options.key_types, key=lambda name: kind not in name)
    try:
        transport.start_client(timeout=endpoint.connect_timeout)
        transport.get_remote_server_key()  # start_client returns in silence when its time is over
    except (OSError, paramiko.SSHException, EOFError) as error:
        raise unreachable(endpoint, error) from error
    return transport


def _socket(endpoint: Endpoint, closing: ExitStack) -> "socket.socket | paramiko.Channel":
    if endpoint.jump is None:
        return socket.create_connection((endpoint.address, endpoint.port), timeout=endpoint.connect_timeout)
    jump = _connected(endpoint.jump, closing)
    target = (endpoint.address, endpoint.port)
    return jump.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=endpoint.connect_timeout)


def _close(transport: paramiko.Transport) -> None:
    transport.close()
    if transport.is_alive():  # else it has not begun
        transport.join(_SHUTDOWN_S)


def _shown(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def _log_in(transport: paramiko.Transport, endpoint: Endpoint) -> None:
    refusals = 0
    with _keys(endpoint) as keys:
        for key in keys:
            try:
                transport.auth_publickey(endpoint.user, key)
            except paramiko.AuthenticationException:
                refusals += 1
            except (paramiko.SSHException, EOFError, OSError) as error:
                if not refusals:
                    raise unreachable(endpoint, error) from error
                break  # sshd ends the connection after so many keys (MaxAuthTries)
            if transport.is_authenticated():
                return
    raise login_refused(endpoint, refusals)


@contextmanager
def _keys(endpoint: Endpoint) -> Generator[Iterable[paramiko.PKey]]:
    if endpoint.key is None:
        agent = paramiko.Agent()
        try:
            yield agent.get_keys()
        finally:
            agent.close()
        return
    secret: Any = endpoint.passphrase.encode() if endpoint.passphrase is not None else None
    try:
        key = paramiko.PKey.from_path(endpoint.key, secret)
    except Exception as error:  # many kinds, some of cryptography's own, for a file that is no key
        raise key_unusable(endpoint, error) from error
    yield [key]


class Connection:
    """A login on a dump host. Each call is a command or a file session of its own on it."""

    def __init__(self, transport: paramiko.Transport, endpoint: Endpoint) -> None:
        self._transport = transport
        self.endpoint = endpoint

    def receive(
        self, command: str, sink: Callable[[bytes], object], *, first: bytes = b"", stall_s: float, deadline_s: float
    ) -> Ended:
        """Run a command, give it `first` as its whole input, and hand its output to `sink` block by block.

        Raises ConnectionLost when the connection ends first, when no byte comes for `stall_s` seconds, or after
        `deadline_s`; SshError when the server starts no command; and what `sink` raises.
        """
        return self._run(command, [first], sink, stall_s=stall_s, deadline_s=deadline_s)

    def send(self, command: str, blocks: Iterable[bytes], *, stall_s: float, deadline_s: float) -> Ended:
        """Run a command with `blocks` as its input; its output is not kept. Raises as `receive` does."""
        return self._run(command, blocks, None, stall_s=stall_s, deadline_s=deadline_s)

    def _run(
        self,
        command: str,
        blocks: Iterable[bytes],
        sink: Callable[[bytes], object] | None,
        *,
        stall_s: float,
        deadline_s: float,
    ) -> Ended:
        deadline = time.monotonic() + deadline_s
        try:
            with self._session(stall_s) as channel:
                channel.exec_command(command)
                errors = Drain(channel.recv_stderr, _STDERR_BYTES)
                rest = Drain(channel.recv, 0) if sink is None else None
                self._feed(channel, blocks, deadline)
                if sink is not None:
                    _read(channel, sink, deadline)
                return self._ending(channel, errors, rest, deadline)
        except TimeoutError as error:
            raise self._lost(f"no byte within {stall_s:g} s") from error
        except paramiko.SSHException as error:
            raise self._refused(error) from error
        except EOFError as error:
            raise self._lost("the connection ended") from error

    @contextmanager
    def _session(self, stall_s: float) -> Generator[paramiko.Channel]:
        channel = self._transport.open_session(timeout=self.endpoint.connect_timeout)
        try:
            channel.settimeout(stall_s)
            yield channel
        finally:
            channel.close()

    def _feed(self, channel: paramiko.Channel, blocks: Iterable[bytes], deadline: float) -> None:
        for block in blocks:
            try:
                channel.sendall(block)
            except TimeoutError:
                raise
            except OSError:  # it reads no more: how it ended tells why
                return
            _require_time(deadline)
        with suppress(OSError, EOFError):
            channel.shutdown_write()

    def _ending(self, channel: paramiko.Channel, errors: "Drain", rest: "Drain | None", deadline: float) -> Ended:
        left = max(0.0, deadline - time.monotonic())
        if not channel.status_event.wait(left):
            raise self._lost("the command did not end in time")
        if rest is not None:
            rest.finish()
        code = channel.exit_status
        # A command that a signal killed has no exit code, but its output was closed in order.
        if code == -1 and not channel.eof_received:
            raise self._lost("the connection ended before the command did")
        return Ended(code, errors.finish())

    def _lost(self, why: str) -> ConnectionLost:
        return ConnectionLost(
            f"The connection to {self.endpoint.name!r} was lost.",
            evidence=f"{self.endpoint.place}: {why}",
            remedy="Look at the network and at what the host was doing; what had come was thrown away.",
        )

    def _refused(self, error: paramiko.SSHException) -> SshError:
        if not self._transport.is_active():
            return self._lost(str(error))
        return SshError(
            f"{self.endpoint.name!r} does not do what was asked.",
            evidence=f"{self.endpoint.place}: {error}",
            remedy="Look at the log of its SSH server; it may allow this key less than is needed.",
        )

    @contextmanager
    def files(self, *, stall_s: float) -> Generator[SftpClient]:
        """A file session (SFTP). Errors of single files are OSErrors; the connection's are typed as elsewhere."""
        try:
            with self._session(stall_s) as channel:
                channel.invoke_subsystem("sftp")
                with SftpClient(channel) as client:
                    yield client
        except TimeoutError as error:
            raise self._lost(f"no answer within {stall_s:g} s") from error
        except (paramiko.SSHException, EOFError) as error:
            raise self._refused(paramiko.SSHException(str(error) or "the connection ended")) from error


def _read(channel: paramiko.Channel, sink: Callable[[bytes], object], deadline: float) -> None:
    while block := channel.recv(_BLOCK):
        sink(block)
        _require_time(deadline)


def _require_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise paramiko.SSHException("it took longer than its deadline")
