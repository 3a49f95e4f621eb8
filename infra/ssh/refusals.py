"""Why there is no connection, as typed errors. Pure, but for the look at SSH_AUTH_SOCK."""

import os

from infra.errors import HostKeyChanged, HostKeyUnknown, HostUnreachable, LoginRefused
from infra.ssh.endpoint import Endpoint, HostKey


def not_pinned(endpoint: Endpoint) -> HostKeyUnknown:
    """Nobody has said which key the host has."""
    return HostKeyUnknown(
        f"The host key of {endpoint.name!r} is not pinned.",
        evidence=f"{endpoint.place}: nothing was sent there",
        remedy="Compare its fingerprint and pin it with `vmborg dumps trust HOST`.",
    )


def key_changed(endpoint: Endpoint, pinned: HostKey, shown: HostKey) -> HostKeyChanged:
    """It is another key than the pinned one."""
    return HostKeyChanged(
        f"{endpoint.name!r} shows another host key than the pinned one.",
        evidence=f"{endpoint.place}\npinned: {pinned.kind} {pinned.fingerprint}\n"
        f"shown:  {shown.kind} {shown.fingerprint}",
        remedy="Somebody else may answer there. If the host was installed anew, pin its new key with "
        "`vmborg dumps trust HOST`.",
    )


def unreachable(endpoint: Endpoint, error: BaseException) -> HostUnreachable:
    """No connection, or no SSH server at its end."""
    return HostUnreachable(
        f"{endpoint.name!r} cannot be reached by SSH.",
        evidence=f"{endpoint.place}: {error or type(error).__name__}",
        remedy="See that the host is up, that address and port are right and that a firewall lets us through.",
    )


def login_refused(endpoint: Endpoint, refusals: int) -> LoginRefused:
    """The server took none of our keys; so many of them were refused one by one."""
    if endpoint.key is not None:
        tried, remedy = f"{endpoint.key} was refused", "or correct user and key."
    else:
        agent = os.environ.get("SSH_AUTH_SOCK")
        tried = f"{refusals} keys of the SSH agent were refused" if refusals else "the agent has no key"
        tried = tried if agent else "no agent: SSH_AUTH_SOCK is not set"
        remedy = "and into the agent, or name a private key in `key`: a server looks at a few keys only."
    return LoginRefused(
        f"{endpoint.name!r} does not let {endpoint.user!r} in with our key.",
        evidence=f"{endpoint.place}: {tried}",
        remedy=f"Put the public key into authorized_keys of this user there, {remedy}",
    )


def key_unusable(endpoint: Endpoint, error: Exception) -> LoginRefused:
    """The file of the key is none, or is locked."""
    return LoginRefused(
        f"The SSH key for {endpoint.name!r} cannot be used.",
        evidence=f"{endpoint.key}: {getattr(error, 'strerror', '') or error or type(error).__name__}",
        remedy="It has to be a private key in OpenSSH's form; with a passphrase, set key_passphrase too.",
    )
