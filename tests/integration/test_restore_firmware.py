"""Firmware state and boot files: NVRAM, TPM, kernel and initrd come back with the disks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.hypervisor.connection import Domain
from infra.hypervisor.domain_xml import parse_domain
from infra.hypervisor.inspect import SWTPM_DIR
from tasks.restore import Mode
from tests.guests import Daemons, DiskSpec, image_dir
from tests.integration.bare import digest
from tests.integration.restoring import RestoreHost, restore_host

pytestmark = pytest.mark.integration

UEFI = """<os><type arch='x86_64' machine='q35'>hvm</type>
  <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
  <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{nvram}</nvram></os><features><acpi/></features>"""
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><controller type='usb'"
OS = "<os><type arch='x86_64' machine='q35'>hvm</type></os>"


@pytest.fixture
def host(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with an empty repository."""
    assert daemons is not None
    with image_dir("firmware") as root, restore_host(root) as place:
        yield place


def _started_once(domain: Domain) -> Domain:
    """libvirt makes NVRAM and TPM state at the first start."""
    domain.start(paused=True)
    domain.destroy()
    return domain


def _nvram(domain: Domain) -> Path:
    nvram = parse_domain(domain.inactive_xml()).nvram
    assert nvram is not None
    return Path(nvram.path)


def _tpm(uuid: str) -> Path:
    return SWTPM_DIR / uuid / "tpm2" / "tpm2-00.permall"


@pytest.fixture
def domain(host: RestoreHost) -> Domain:
    """A UEFI domain with a TPM and with state in both."""
    nvram = f"/var/lib/libvirt/qemu/nvram/{host.prefix}-vm_VARS.fd"
    edits = [(OS, UEFI.format(nvram=nvram)), ("<controller type='usb'", TPM)]
    made = _started_once(host.define([DiskSpec("vda", host.image("vm.qcow2"))], edit=edits))
    with _nvram(made).open("r+b") as file:
        file.seek(100_000)
        file.write(b"boot order")
    return made


def test_a_copy_has_its_own_firmware_state(host: RestoreHost, domain: Domain) -> None:
    """NVRAM and TPM state of a copy hold what was archived, under its own name and UUID, and it starts with them."""
    host.factory.make(domain)
    nvram, tpm = digest(_nvram(domain)), digest(_tpm(domain.uuid))
    result = host.restore(domain.name, Mode.COPY)
    copy = host.find(result.name)
    assert _nvram(copy) == Path(f"/var/lib/libvirt/qemu/nvram/{host.prefix}-copy_VARS.fd")
    assert (digest(_nvram(copy)), digest(_tpm(copy.uuid))) == (nvram, tpm)
    assert not list(SWTPM_DIR.glob("**/.vmborg*"))
    copy.start(paused=True)
    assert copy.live_xml()
    copy.destroy()
    assert (digest(_nvram(domain)), digest(_tpm(domain.uuid))) == (nvram, tpm)


def test_in_place_puts_the_archived_firmware_state_back(host: RestoreHost, domain: Domain) -> None:
    """In place, changed NVRAM and TPM state are replaced by the archived ones, and no former ones are left."""
    host.factory.make(domain)
    nvram, tpm = digest(_nvram(domain)), digest(_tpm(domain.uuid))
    _nvram(domain).write_bytes(b"\0" * 540672)
    _tpm(domain.uuid).write_bytes(b"changed")
    host.restore(domain.name, Mode.IN_PLACE)
    assert (digest(_nvram(domain)), digest(_tpm(domain.uuid))) == (nvram, tpm)
    assert [path.name for path in _nvram(domain).parent.glob(f"{host.prefix}*")] == [_nvram(domain).name]
    assert [path.name for path in (SWTPM_DIR / domain.uuid).iterdir()] == ["tpm2"]


def test_a_vm_lost_with_its_firmware_state_comes_back(host: RestoreHost, domain: Domain) -> None:
    """A VM undefined with NVRAM, TPM state and image all deleted is restored in place with all of them."""
    host.factory.make(domain)
    name, uuid, nvram = domain.name, domain.uuid, _nvram(domain)
    before = digest(nvram), digest(_tpm(uuid))
    domain.undefine(keep_nvram=False)
    (host.images / "vm.qcow2").unlink()
    assert not _tpm(uuid).exists()
    host.restore(name, Mode.IN_PLACE)
    assert (digest(nvram), digest(_tpm(uuid))) == before
    again = host.find(name)
    again.start(paused=True)
    again.destroy()


def test_a_copy_of_a_vm_that_never_ran_has_variables_of_its_own(host: RestoreHost) -> None:
    """Without archived variables a copy does not write to those of its original: libvirt gives it its own."""
    nvram = f"/var/lib/libvirt/qemu/nvram/{host.prefix}-vm_VARS.fd"
    edits = [(OS, UEFI.format(nvram=nvram))]
    original = host.define([DiskSpec("vda", host.image("vm.qcow2"))], edit=edits)
    host.factory.make(original)
    copy = host.find(host.restore(original.name, Mode.COPY).name)
    for domain in (original, copy):
        domain.start(paused=True)
    assert _nvram(original) == Path(nvram)
    assert _nvram(copy) != Path(nvram)
    copy.destroy()
    copy.undefine(keep_nvram=False)
    assert Path(nvram).is_file()


def test_kernel_and_initrd_come_back(host: RestoreHost) -> None:
    """A copy boots its own kernel; in place one that is the same is kept, and a different one is not overwritten."""
    kernel, initrd = host.root / "vmlinuz", host.root / "initrd.img"
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    boot = OS.replace("</os>", f"<kernel>{kernel}</kernel><initrd>{initrd}</initrd></os>")
    domain = host.define([DiskSpec("vda", host.image("vm.qcow2"))], edit=[(OS, boot)])
    host.factory.make(domain)
    copy = parse_domain(host.find(host.restore(domain.name, Mode.COPY).name).inactive_xml())
    assert copy.kernel == f"{host.images}/{host.prefix}-copy-kernel"
    assert Path(copy.kernel).read_bytes() == b"kernel"
    assert Path(copy.initrd).read_bytes() == b"initrd"
    kernel.write_bytes(b"newer kernel")
    initrd.unlink()
    host.restore(domain.name, Mode.IN_PLACE)
    restored = parse_domain(domain.inactive_xml())
    assert kernel.read_bytes() == b"newer kernel"
    assert restored.kernel != str(kernel)
    assert Path(restored.kernel).read_bytes() == b"kernel"
    assert restored.initrd == str(initrd)
    assert initrd.read_bytes() == b"initrd"
