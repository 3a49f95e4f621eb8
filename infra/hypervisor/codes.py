"""The numbers of libvirt, and what each of its errors means to an administrator. Pure.

The numbers are its public ABI (libvirt/virterror.h, libvirt-domain.h), repeated here so that connection.py
stays the only importer of libvirt; an integration test holds each against the installed binding.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from infra.errors import (
    AgentUnresponsive,
    DiskMissing,
    DomainBusy,
    DomainExists,
    DomainNotFound,
    DomainStateChanged,
    DomainXmlError,
    HypervisorError,
    HypervisorUnreachable,
)


class Code(IntEnum):
    """VIR_ERR_*, as far as vmborg tells them apart."""

    INTERNAL_ERROR = 1
    NO_SUPPORT = 3
    NO_CONNECT = 5
    INVALID_CONN = 6
    OPERATION_FAILED = 9
    OS_TYPE = 16
    NO_NAME = 21
    XML_ERROR = 27
    DOM_EXIST = 28
    OPERATION_DENIED = 29
    XML_DETAIL = 35
    SYSTEM_ERROR = 38
    RPC = 39
    NO_DOMAIN = 42
    AUTH_FAILED = 45
    NO_STORAGE_POOL = 49
    NO_STORAGE_VOL = 50
    OPERATION_INVALID = 55
    CONFIG_UNSUPPORTED = 67
    OPERATION_TIMEOUT = 68
    ARGUMENT_UNSUPPORTED = 74
    AUTH_CANCELLED = 79
    BLOCK_COPY_ACTIVE = 83
    OPERATION_UNSUPPORTED = 84
    AGENT_UNRESPONSIVE = 86
    RESOURCE_BUSY = 87
    ACCESS_DENIED = 88
    XML_INVALID_SCHEMA = 92
    AUTH_UNAVAILABLE = 94
    AGENT_UNSYNCED = 97


FROM_RPC = 7
"""VIR_FROM_RPC: the error was made by the client's own transport, not by the daemon."""

_TRANSPORT = {Code.INTERNAL_ERROR, Code.NO_CONNECT, Code.INVALID_CONN, Code.SYSTEM_ERROR, Code.RPC}


class Xml(IntFlag):
    """VIR_DOMAIN_XML_*."""

    SECURE = 1
    INACTIVE = 2
    MIGRATABLE = 8


class Snapshot(IntFlag):
    """VIR_DOMAIN_SNAPSHOT_CREATE_*."""

    NO_METADATA = 4
    DISK_ONLY = 16
    ATOMIC = 128


class AddressSource(IntEnum):
    """VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_*."""

    LEASE = 0
    AGENT = 1
    ARP = 2


class Undefine(IntFlag):
    """VIR_DOMAIN_UNDEFINE_*."""

    MANAGED_SAVE = 1
    SNAPSHOTS_METADATA = 2
    NVRAM = 4
    KEEP_NVRAM = 8
    CHECKPOINTS_METADATA = 16
    TPM = 32
    KEEP_TPM = 64


BLOCK_COMMIT_ACTIVE = 4
BLOCK_JOB_ABORT_ASYNC = 1
BLOCK_JOB_ABORT_PIVOT = 2
START_PAUSED = 1
CHECKPOINT_METADATA_ONLY = 2

STATES = {
    0: "no state",
    1: "running",
    2: "blocked",
    3: "paused",
    4: "in shutdown",
    5: "shut off",
    6: "crashed",
    7: "suspended by the guest",
}
"""virDomainState."""

PAUSED_IOERROR = 5
"""VIR_DOMAIN_PAUSED_IOERROR: the state reason of a guest that qemu paused because its disk gave an error."""

ACTIVE_COMMIT = "active commit"
BLOCK_JOBS = {1: "pull", 2: "copy", 3: "commit", 4: ACTIVE_COMMIT, 5: "backup"}
"""virDomainBlockJobType."""

JOB_OPERATIONS = {
    1: "start",
    2: "save",
    3: "restore",
    4: "migration in",
    5: "migration out",
    6: "snapshot",
    7: "snapshot revert",
    8: "dump",
    9: "backup",
    10: "snapshot delete",
}
"""virDomainJobOperation."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a code means, optionally only when libvirt's message holds `text`."""

    code: Code
    kind: type[HypervisorError]
    remedy: str
    text: str = ""


_START_DAEMON = "Start it (systemctl start libvirtd, or virtqemud), then try again."
_RIGHTS = "Run this as root, or as a member of the group that libvirt lets in (usually libvirt)."
_BUSY = "Wait until it is done (virsh domjobinfo, virsh blockjob), or end it, then try again."
_AGENT = "Look whether qemu-guest-agent runs inside the guest and whether the guest itself still answers."
_XML = "Correct the definition with virsh edit; virt-xml-validate names the line."
_UNSUPPORTED = "This host's libvirt or qemu cannot do that with this domain. If a disk is named, exclude it."

_RULES = (
    _Rule(Code.NO_DOMAIN, DomainNotFound, "virsh list --all shows the domains of this host."),
    _Rule(Code.DOM_EXIST, DomainExists, "Choose another name, or undefine the domain that holds it."),
    _Rule(Code.OPERATION_FAILED, DomainExists, "Choose another name.", "already exists with uuid"),
    _Rule(Code.OPERATION_FAILED, DomainExists, "Choose another name or UUID.", "is already defined with uuid"),
    _Rule(Code.OPERATION_INVALID, DomainStateChanged, "Look at virsh domstate, then try again.", "not running"),
    _Rule(Code.OPERATION_INVALID, DomainExists, "Choose another UUID.", "is already active as"),
    _Rule(
        Code.OPERATION_INVALID,
        DomainStateChanged,
        "Look at virsh domstate, then try again.",
        "already running",
    ),
    _Rule(Code.BLOCK_COPY_ACTIVE, DomainBusy, _BUSY),
    _Rule(Code.OPERATION_TIMEOUT, DomainBusy, _BUSY),
    _Rule(Code.RESOURCE_BUSY, DomainBusy, _BUSY),
    _Rule(Code.AGENT_UNRESPONSIVE, AgentUnresponsive, _AGENT),
    _Rule(Code.AGENT_UNSYNCED, AgentUnresponsive, _AGENT),
    _Rule(
        Code.ARGUMENT_UNSUPPORTED,
        HypervisorError,
        "Give the domain a guest agent channel.",
        "agent is not conf",
    ),
    _Rule(Code.XML_ERROR, DomainXmlError, _XML),
    _Rule(Code.NO_NAME, DomainXmlError, _XML),
    _Rule(Code.OS_TYPE, DomainXmlError, _XML),
    _Rule(Code.XML_DETAIL, DomainXmlError, _XML),
    _Rule(Code.XML_INVALID_SCHEMA, DomainXmlError, _XML),
    _Rule(Code.CONFIG_UNSUPPORTED, HypervisorError, _UNSUPPORTED),
    _Rule(Code.NO_SUPPORT, HypervisorError, _UNSUPPORTED),
    _Rule(Code.OPERATION_UNSUPPORTED, HypervisorError, _UNSUPPORTED),
    _Rule(Code.ARGUMENT_UNSUPPORTED, HypervisorError, _UNSUPPORTED),
    _Rule(
        Code.SYSTEM_ERROR,
        DiskMissing,
        "Bring the file back, or correct the disk.",
        "Cannot access storage file",
    ),
    _Rule(Code.NO_STORAGE_VOL, DiskMissing, "virsh vol-list POOL shows what the pool holds."),
    _Rule(Code.NO_STORAGE_POOL, DiskMissing, "virsh pool-list --all shows the pools; start or define it."),
    _Rule(
        Code.INTERNAL_ERROR,
        HypervisorError,
        "Correct hypervisor.uri in the configuration.",
        "unexpected qemu URI",
    ),
    _Rule(Code.NO_CONNECT, HypervisorError, "Correct hypervisor.uri; qemu:///system is the usual one."),
    _Rule(Code.AUTH_FAILED, HypervisorError, _RIGHTS),
    _Rule(Code.AUTH_CANCELLED, HypervisorError, _RIGHTS),
    _Rule(Code.AUTH_UNAVAILABLE, HypervisorError, _RIGHTS),
    _Rule(Code.ACCESS_DENIED, HypervisorError, _RIGHTS),
    _Rule(Code.OPERATION_DENIED, HypervisorError, _RIGHTS),
)


def translate(*, what: str, code: int, origin: int, message: str) -> HypervisorError:
    """The typed error of a failed libvirt call.

    `what` names the attempt ("Freezing the file systems of 'web'"), `code` and `origin` are libvirt's error
    number and domain, `message` its own words.
    """
    evidence = f"libvirt error {code}: {message}"
    brief = f"{what} failed."
    if origin == FROM_RPC and code in _TRANSPORT:
        if "Permission denied" in message:
            return HypervisorError(brief, evidence=evidence, remedy=_RIGHTS, code=code)
        brief = f"{what} failed: the libvirt daemon does not answer."
        return HypervisorUnreachable(brief, evidence=evidence, remedy=_START_DAEMON, code=code)
    if code == Code.INVALID_CONN:
        return HypervisorUnreachable(brief, evidence=evidence, remedy=_START_DAEMON, code=code)
    for rule in _RULES:
        if rule.code == code and rule.text in message:
            return rule.kind(brief, evidence=evidence, remedy=rule.remedy, code=code)
    remedy = "Look into the log of libvirt (journalctl -u libvirtd) and of the domain (/var/log/libvirt/qemu)."
    return HypervisorError(brief, evidence=evidence, remedy=remedy, code=code)
