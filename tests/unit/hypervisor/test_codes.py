"""What libvirt's errors become."""

import pytest

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
from infra.hypervisor.codes import FROM_RPC, Code, translate

FROM_QEMU = 10
"""VIR_FROM_QEMU: an error that the daemon made."""

RECORDED = [
    (Code.NO_DOMAIN, FROM_QEMU, "Domain not found: no domain with matching name 'x'", DomainNotFound),
    (Code.OPERATION_FAILED, FROM_QEMU, "operation failed: domain 'x' already exists with uuid 1", DomainExists),
    (Code.OPERATION_INVALID, FROM_QEMU, "Requested operation is not valid: domain is not running", DomainStateChanged),
    (
        Code.OPERATION_INVALID,
        FROM_QEMU,
        "Requested operation is not valid: domain is already running",
        DomainStateChanged,
    ),
    (
        Code.OPERATION_INVALID,
        FROM_QEMU,
        "Requested operation is not valid: cannot undefine domain with nvram",
        HypervisorError,
    ),
    (Code.BLOCK_COPY_ACTIVE, FROM_QEMU, "block copy still active: disk 'vda' not ready for pivot yet", DomainBusy),
    (Code.OPERATION_TIMEOUT, FROM_QEMU, "Timed out during operation: cannot acquire state change lock", DomainBusy),
    (
        Code.AGENT_UNRESPONSIVE,
        FROM_QEMU,
        "Guest agent is not responding: QEMU guest agent is not connected",
        AgentUnresponsive,
    ),
    (Code.ARGUMENT_UNSUPPORTED, FROM_QEMU, "argument unsupported: QEMU guest agent is not configured", HypervisorError),
    (
        Code.CONFIG_UNSUPPORTED,
        FROM_QEMU,
        "unsupported configuration: external snapshot for shared disk",
        HypervisorError,
    ),
    (Code.XML_DETAIL, 0, "(domain_definition):1: Couldn't find end of Start Tag", DomainXmlError),
    (Code.SYSTEM_ERROR, FROM_QEMU, "Cannot access storage file '/a': No such file or directory", DiskMissing),
    (Code.SYSTEM_ERROR, FROM_QEMU, "unable to open /a: Input/output error", HypervisorError),
    (Code.INTERNAL_ERROR, FROM_QEMU, "internal error: unable to execute QEMU command", HypervisorError),
    (Code.SYSTEM_ERROR, FROM_RPC, "Failed to connect socket to '/s': No such file or directory", HypervisorUnreachable),
    (Code.SYSTEM_ERROR, FROM_RPC, "Failed to connect socket to '/s': Permission denied", HypervisorError),
    (Code.SYSTEM_ERROR, FROM_RPC, "End of file while reading data: Input/output error", HypervisorUnreachable),
    (Code.INTERNAL_ERROR, FROM_RPC, "internal error: client socket is closed", HypervisorUnreachable),
    (Code.INVALID_CONN, FROM_QEMU, "invalid connection pointer", HypervisorUnreachable),
    (Code.NO_CONNECT, 0, "no connection driver available for foo:///x", HypervisorError),
    (Code.AUTH_UNAVAILABLE, FROM_RPC, "authentication unavailable: no polkit agent available", HypervisorError),
    (4711, FROM_QEMU, "an error of the future", HypervisorError),
]


@pytest.mark.parametrize(("code", "origin", "message", "kind"), RECORDED)
def test_each_error_gets_its_type(code: int, origin: int, message: str, kind: type[HypervisorError]) -> None:
    """A libvirt error becomes exactly the type that says what to do, and keeps libvirt's number."""
    error = translate(what="Trying it", code=code, origin=origin, message=message)
    assert type(error) is kind
    assert error.code == code


@pytest.mark.parametrize(("code", "origin", "message", "kind"), RECORDED)
def test_each_error_speaks_with_three_voices(code: int, origin: int, message: str, kind: type[HypervisorError]) -> None:
    """Every translated error names the attempt, libvirt's own words, and something to do."""
    error = translate(what="Trying it", code=code, origin=origin, message=message)
    assert isinstance(error, kind)
    assert error.brief.startswith("Trying it failed")
    assert message in error.evidence
    assert error.remedy


def test_only_what_may_pass_by_itself_is_transient() -> None:
    """A broken connection, a silent agent and a changed state may be tried again; nothing else is."""
    transient = {
        kind
        for code, origin, message, kind in RECORDED
        if translate(what="It", code=code, origin=origin, message=message).transient
    }
    assert transient == {HypervisorUnreachable, AgentUnresponsive, DomainStateChanged}
