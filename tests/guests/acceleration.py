"""Whether guests run on KVM or in emulation."""

import os
from functools import cache

from infra.process import spawn
from tests.guests.build import CACHE, build_boot
from tests.guests.waiting import GuestError


@cache
def accelerator() -> str:
    """The domain type: `qemu` (emulation), or `kvm` if VMBORG_TEST_ACCEL=kvm asks for it and a guest boots on it.

    Raises GuestError if none does. A /dev/kvm that opens proves nothing: inside some virtual machines the firmware
    still runs on it and the kernel hangs.
    """
    if os.environ.get("VMBORG_TEST_ACCEL", "qemu") != "kvm":
        return "qemu"
    if not _boots_on_kvm():
        raise GuestError("VMBORG_TEST_ACCEL=kvm, but a guest does not boot on /dev/kvm here")
    return "kvm"


def _boots_on_kvm() -> bool:
    boot = build_boot(CACHE)
    machine = "timeout 30 qemu-system-x86_64 -accel kvm -cpu host -m 192 -nodefaults -display none -serial stdio"
    kernel = ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", "console=ttyS0 quiet"]
    with spawn([*machine.split(), *kernel]) as child:
        return any("guest ready" in line for line in child.stdout)
