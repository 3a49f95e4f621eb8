"""The door to libvirt, and the only module that imports it.

`Link` turns every libvirtError into a typed error and survives a restart of the daemon: a call that only
reads opens the connection anew, once, and is repeated; a call that acts (snapshot, commit, define) is never
repeated, because nobody knows whether the daemon carried it out before it went away.
"""

import difflib
import logging
import threading
import time
import uuid as uuids
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import libvirt
import libvirt_qemu

from infra.errors import DomainBusy, DomainNotFound, HypervisorError, HypervisorUnreachable
from infra.hypervisor import codes
from infra.hypervisor.answers import BlockJob, FileSystem
from infra.hypervisor.bounded import CALL_S, START_S, bounded
from infra.hypervisor.domain import Domain
from infra.hypervisor.observed import Observed

__all__ = ["BlockJob", "Domain", "FileSystem", "Hypervisor", "Link", "Versions"]

T = TypeVar("T")
RawDomain = libvirt.virDomain

logger = logging.getLogger("vmborg.hypervisor")

RECONNECT_WAIT = 15.0
"""Seconds to wait for a daemon that went away: a restart takes one to three, on a busy host more."""

_RECONNECT_STEP = 0.2


def _keep_quiet(_context: None, _error: tuple[object, ...]) -> None:
    """Take the errors that libvirt would print on stderr; they are raised anyway."""


libvirt.registerErrorHandler(_keep_quiet, None)


def _typed(error: libvirt.libvirtError, *, what: str) -> HypervisorError:
    return codes.translate(
        what=what,
        code=error.get_error_code() or 0,
        origin=error.get_error_domain() or 0,
        message=error.get_error_message() or str(error),
    )


class Link:
    """A connection that can be opened anew. Safe to share between threads."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.RLock()
        self._raw: libvirt.virConnect | None = None
        self._raw = self._open()

    def _open(self) -> libvirt.virConnect:
        try:
            return bounded(f"Connecting to {self.uri}", lambda: libvirt.open(self.uri))
        except libvirt.libvirtError as error:
            raise _typed(error, what=f"Connecting to {self.uri}") from error

    def _connection(self) -> libvirt.virConnect:
        with self._lock:
            if self._raw is None:
                raise HypervisorUnreachable(f"The connection to {self.uri} was closed.")
            return self._raw

    def _reconnect(self, broken: libvirt.virConnect) -> None:
        """Replace `broken`, unless another thread did. Raises HypervisorUnreachable after RECONNECT_WAIT."""
        deadline = time.monotonic() + RECONNECT_WAIT
        with self._lock:
            if self._raw is not broken:
                return
            logger.warning("The connection to %s broke; opening it anew.", self.uri)
            while True:
                try:
                    self._raw = self._open()
                except HypervisorUnreachable:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_RECONNECT_STEP)
                else:
                    return

    def act(self, what: str, operation: Callable[[libvirt.virConnect], T], *, seconds: float = CALL_S) -> T:
        """Call once. `what` names the attempt, as in "Freezing the file systems of 'web'".

        Raises DomainBusy when libvirt does not answer within `seconds`.
        """
        connection = self._connection()
        try:
            return bounded(what, lambda: operation(connection), seconds=seconds)
        except libvirt.libvirtError as error:
            raise _typed(error, what=what) from error

    def read(self, what: str, operation: Callable[[libvirt.virConnect], T]) -> T:
        """Call, and once more on a new connection when this one turns out to be broken."""
        connection = self._connection()
        try:
            return self.act(what, operation)
        except HypervisorUnreachable:
            self._reconnect(connection)
            return self.act(what, operation)

    def read_domain(self, uuid: str, *, what: str, operation: Callable[[RawDomain], T]) -> T:
        """Look the domain up and read from it."""
        return self.read(what, lambda connection: operation(connection.lookupByUUIDString(uuid)))

    def act_domain(self, uuid: str, *, what: str, operation: Callable[[RawDomain], T], seconds: float = CALL_S) -> T:
        """Look it up, which finds a broken connection before anything is sent, then act on it once."""
        raw = self.read(what, lambda connection: connection.lookupByUUIDString(uuid))
        return self.act(what, lambda _: operation(raw), seconds=seconds)

    def act_host(self, what: str, operation: Callable[[libvirt.virConnect], T], *, seconds: float = CALL_S) -> T:
        """Make sure of the connection with a question, then act once."""
        self.read(what, lambda connection: connection.getLibVersion())
        return self.act(what, operation, seconds=seconds)

    def agent_command(self, raw: RawDomain, *, request: str, timeout: int) -> str:
        """The guest agent's answer to a JSON request, `timeout` in seconds. Only inside an operation."""
        return libvirt_qemu.qemuAgentCommand(raw, request, timeout, 0)

    def volume_path(self, pool: str, volume: str) -> str:
        """The path of a storage volume. Raises DiskMissing."""

        def look_up(connection: libvirt.virConnect) -> str:
            return connection.storagePoolLookupByName(pool).storageVolLookupByName(volume).path()

        return self.read(f"Looking up volume {volume!r} of storage pool {pool!r}", look_up)

    def close(self) -> None:
        """Close it; later calls raise HypervisorUnreachable."""
        with self._lock:
            raw, self._raw = self._raw, None
        if raw is not None:
            try:
                bounded("Closing the connection", raw.close)
            except (libvirt.libvirtError, DomainBusy) as error:
                logger.debug("Closing a broken connection to %s: %s", self.uri, error)


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of what a hypervisor runs."""

    libvirt: tuple[int, int, int]
    hypervisor: tuple[int, int, int]  # of qemu


def _version(number: int) -> tuple[int, int, int]:
    """Decode a version number: 9000001 is 9.0.1."""
    return number // 1_000_000, number // 1_000 % 1_000, number % 1_000


class Hypervisor:
    """One host's libvirt. A context manager; may be shared between threads."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @classmethod
    def open(cls, uri: str) -> Self:
        """Connect. Raises HypervisorUnreachable; HypervisorError for a wrong URI or missing rights."""
        return cls(Link(uri))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._link.close()

    @property
    def uri(self) -> str:
        """What it was opened with."""
        return self._link.uri

    def hostname(self) -> str:
        """The host's name, as libvirt sees it."""
        return self._link.read("Asking for the host's name", lambda connection: connection.getHostname())

    def versions(self) -> Versions:
        """Versions of libvirt's daemon and of qemu."""
        numbers = self._link.read("Asking for versions", lambda raw: (raw.getLibVersion(), raw.getVersion()))
        return Versions(libvirt=_version(numbers[0]), hypervisor=_version(numbers[1]))

    def capabilities_xml(self) -> str:
        """What the host and its hypervisor can do, security models among it."""
        return self._link.read("Asking for capabilities", lambda connection: connection.getCapabilities())

    def domains(self) -> list[Domain]:
        """All domains, running or not, by name."""
        found = self._link.read("Listing domains", lambda connection: connection.listAllDomains(0))
        return [self._domain(raw) for raw in sorted(found, key=lambda raw: raw.name())]

    def _domain(self, raw: RawDomain) -> Domain:
        return Domain(self._link, uuid=raw.UUIDString(), name=raw.name())

    def by_uuid(self, uuid: str) -> Domain:
        """The domain of a UUID. Raises DomainNotFound."""
        what = f"Looking up the domain {uuid}"
        return self._link.read_domain(uuid, what=what, operation=self._domain)

    def observed(self, uuid: str) -> Observed:
        """The domain of a UUID, of which a drill asks more. Raises DomainNotFound."""
        return Observed(self._link, uuid=uuid, name=self.by_uuid(uuid).name)

    def find(self, name_or_uuid: str) -> Domain:
        """The domain of this name or, without one, of this UUID. Raises DomainNotFound with close matches."""
        what = f"Looking up the domain {name_or_uuid!r}"
        try:
            return self._link.read(what, lambda raw: self._domain(raw.lookupByName(name_or_uuid)))
        except DomainNotFound as error:
            uuid = _as_uuid(name_or_uuid)
            if uuid:
                return self.by_uuid(uuid)
            raise self._not_found(name_or_uuid, evidence=error.evidence) from error

    def _not_found(self, name: str, *, evidence: str) -> DomainNotFound:
        names = self._link.read("Listing domains", lambda raw: [each.name() for each in raw.listAllDomains(0)])
        close = difflib.get_close_matches(name, names, n=3)
        hint = f"Did you mean {' or '.join(repr(each) for each in close)}? " if close else ""
        return DomainNotFound(
            f"There is no domain {name!r} on {self.uri}.",
            evidence=evidence,
            remedy=f"{hint}virsh -c {self.uri} list --all shows the domains.",
            code=codes.Code.NO_DOMAIN,
        )

    def addresses(self, domain: Domain, *, agent_timeout: int = 5) -> list[str]:
        """The running guest's IP addresses: its agent's answer first, then libvirt's leases, then the ARP table.

        A source that cannot be asked is passed over. Raises DomainNotFound, HypervisorUnreachable.
        """
        found: list[str] = []
        for source in (codes.AddressSource.AGENT, codes.AddressSource.LEASE, codes.AddressSource.ARP):
            try:
                if source is codes.AddressSource.AGENT:
                    domain.agent_timeout(agent_timeout)
                found += self._addresses(domain, source)
            except (DomainNotFound, HypervisorUnreachable):
                raise
            except HypervisorError as error:
                logger.debug("%s", error)
        return list(dict.fromkeys(found))

    def _addresses(self, domain: Domain, source: int) -> list[str]:
        answer = self._link.read_domain(
            domain.uuid,
            what=f"Asking for the addresses of {domain!r}",
            operation=lambda raw: raw.interfaceAddresses(source),
        )
        return [str(each["addr"]) for interface in answer.values() for each in interface.get("addrs") or ()]

    def define(self, xml: str) -> Domain:
        """Define a persistent domain, or redefine the one of the same name and UUID.

        Raises DomainExists when the name belongs to another UUID, DomainXmlError when libvirt cannot read it.
        """
        return self._link.act_host("Defining a domain", lambda raw: self._domain(raw.defineXML(xml)))

    def create_transient(self, xml: str, *, paused: bool = False) -> Domain:
        """Start a domain that is gone once it is shut off."""
        flags = codes.START_PAUSED if paused else 0
        return self._link.act_host(
            "Starting a domain", lambda raw: self._domain(raw.createXML(xml, flags)), seconds=START_S
        )


def _as_uuid(text: str) -> str:
    """The canonical form of a UUID, "" for anything else."""
    try:
        return str(uuids.UUID(text))
    except ValueError:
        return ""
