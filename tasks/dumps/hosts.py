"""From a dump host in the configuration to a place that can be connected to."""

import ipaddress
from pathlib import Path

from infra.config.dumps import DumpHost, JumpHost
from infra.config.models import Config
from infra.config.secret_ref import SecretRef
from infra.config.secrets import file_problem, resolve
from infra.dumps.manifest import DumpManifest, read
from infra.dumps.source import Source
from infra.dumps.tree import CONTENT
from infra.errors import HostKeyUnknown, HostUnreachable, LoginRefused, UsageError
from infra.hypervisor.connection import Hypervisor
from infra.process import run
from infra.ssh.endpoint import Endpoint, HostKey, parse_host_key
from infra.ssh.pins import read_pin


def find_host(config: Config, name: str) -> DumpHost:
    """The dump host of this name. Raises UsageError."""
    found = config.dumps.hosts.get(name)
    if found is None:
        raise UsageError(
            f"There is no dump host {name!r} in the configuration.",
            evidence=f"known: {', '.join(config.dumps.hosts) or 'none'}",
            remedy="Name one of these, or add it under `dumps.hosts:`.",
        )
    return found


def password_of(host: DumpHost, name: str, source: Source) -> str | None:
    """What a source's database user logs in with on this host; None without a password. Raises ConfigError."""
    reference = host.passwords.get(source.label)
    if reference is None:
        return None
    return resolve(reference, what=f"the password of {source.label!r} on {name!r}")


def hosts_before(config: Config, *, name: str, uuid: str) -> list[str]:
    """The dump hosts that are pulled before each backup of this VM."""
    return [each for each, host in config.dumps.hosts.items() if host.before_vm_backup and host.vm in {name, uuid}]


def last_dumps(config: Config, name: str) -> DumpManifest | None:
    """What the newest tree of a host says of itself; None if there is none. Raises ManifestError."""
    return read(config.state.dumps / name / "latest" / CONTENT)


def pin_path(config: Config, name: str, *, jump: bool = False) -> Path:
    """Where the pinned host key of a dump host is, or of the jump host before it."""
    return config.state.dumps / name / ("jump_host_key" if jump else "host_key")


def endpoint(config: Config, name: str, *, login: tuple[str | None, Path | None] = (None, None)) -> Endpoint:
    """Where to connect for a dump host, with what is pinned. `login` is a user and a key in place of the configured.

    Raises UsageError, ConfigError (the key's passphrase), LoginRefused (everybody can read the key), HostKeyUnknown
    (what is pinned is no key), HostUnreachable and HypervisorError (the address of a VM).
    """
    host = find_host(config, name)
    user, key = login
    key = key or host.key
    _require_private(name, key)
    secret = resolve(host.key_passphrase, what=f"the passphrase of {host.key}") if host.key_passphrase else None
    return Endpoint(
        name=name,
        address=address_of(config, host),
        port=host.port,
        user=user or host.user,
        key=key,
        passphrase=secret,
        pinned=_pinned(name, host.host_key) or read_pin(pin_path(config, name)),
        connect_timeout=host.connect_timeout,
        jump=_jump(config, name, host.jump, fallback=host) if host.jump else None,
    )


def _jump(config: Config, name: str, jump: JumpHost, *, fallback: DumpHost) -> Endpoint:
    _require_private(name, jump.key)
    opens = fallback.key_passphrase if jump.key in {None, fallback.key} else None
    return Endpoint(
        name=f"{name} (its jump host)",
        address=jump.address,
        port=jump.port,
        user=jump.user,
        key=jump.key or fallback.key,
        passphrase=resolve(opens, what="the passphrase of the key") if opens else None,
        pinned=_pinned(name, jump.host_key) or read_pin(pin_path(config, name, jump=True)),
        connect_timeout=fallback.connect_timeout,
    )


def _require_private(name: str, key: Path | None) -> None:
    if key is None:
        return
    try:
        problem = file_problem(key)
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise LoginRefused(
            f"The SSH key for {name!r} cannot be used.",
            evidence=f"{key}: {problem}",
            remedy=f"Make one with ssh-keygen -t ed25519 -f {key}, or chmod 0600 it; change it if it was seen.",
        )


def _pinned(name: str, written: str | None) -> HostKey | None:
    if written is None:
        return None
    try:
        return parse_host_key(written)
    except ValueError as error:
        raise HostKeyUnknown(
            f"The host_key of {name!r} in the configuration is none.",
            evidence=str(error),
            remedy="Copy the line of the host's /etc/ssh/ssh_host_ed25519_key.pub, after comparing it.",
        ) from error


def address_of(config: Config, host: DumpHost) -> str:
    """The configured address, or that which a VM has now. Raises HostUnreachable, HypervisorError."""
    if host.address is not None:
        return host.address
    vm = host.vm or ""
    with Hypervisor.open(config.hypervisor.uri) as hypervisor:
        found = hypervisor.addresses(hypervisor.find(vm))
    usable = [address for address in found if _usable(address)]
    if not usable:
        raise HostUnreachable(
            f"The VM {vm!r} has no address that could be connected to.",
            evidence=f"its agent, libvirt's leases and the host's ARP table name: {', '.join(found) or 'none'}",
            remedy="Start it and its qemu-guest-agent, or write `address` instead of `vm`.",
        )
    return usable[0]


def _usable(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)


def public_key(key: Path, passphrase: SecretRef | None) -> str:
    """The public half of a key, from the file beside it or by ssh-keygen.

    Raises LoginRefused (there is no such key, everybody can read it), CommandFailed, CommandNotFound.

    A key with a passphrase needs its `.pub` beside it: ssh-keygen would ask for the passphrase on a terminal.
    """
    beside = key.with_name(f"{key.name}.pub")
    _require_private(str(key), key)
    if beside.is_file():
        return beside.read_text("utf-8").strip()
    if passphrase is not None:
        raise UsageError(
            f"The public key of {key} is missing.", evidence=f"{beside} is not there", remedy="Copy it there."
        )
    return run(["ssh-keygen", "-y", "-P", "", "-f", str(key)], timeout=30).stdout.strip()
