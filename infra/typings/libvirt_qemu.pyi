"""What vmborg uses of libvirt_qemu: the guest agent's own commands."""

from libvirt import virDomain

VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK: int
VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT: int
VIR_DOMAIN_QEMU_AGENT_COMMAND_NOWAIT: int
VIR_DOMAIN_QEMU_AGENT_COMMAND_SHUTDOWN: int

def qemuAgentCommand(domain: virDomain, cmd: str, timeout: int, flags: int) -> str:
    """timeout in seconds, or one of the values above"""
