"""Domains inspected in every state, and the files that they boot from."""

from pathlib import Path

import pytest

from infra.errors import (
    AgentUnresponsive,
    DiskMissing,
    DomainNotFound,
    DomainStateChanged,
)
from infra.hypervisor import codes
from infra.hypervisor.inspect import inspect
from infra.model import DomainState, Verdict
from tests.guests import virsh
from tests.integration.hypervisor.small import TAG, URI, Maker, disk, qcow2

pytestmark = pytest.mark.integration


def test_states_are_told_apart(make: Maker, folder: Path) -> None:
    """Shut off, paused and running are seen, with a live definition exactly while qemu runs."""
    domain = make.define(f"read-{TAG}-states", disk("vda", qcow2(folder / "a.qcow2")))
    facts = inspect(domain, exclude_disks=())
    assert (facts.state, facts.running, facts.live_xml, facts.persistent) == (DomainState.SHUT_OFF, False, "", True)
    domain.start(paused=True)
    facts = inspect(domain, exclude_disks=())
    assert (facts.state, facts.running, facts.has_agent) == (DomainState.PAUSED, True, False)
    assert facts.live_xml
    domain.resume()
    assert inspect(domain, exclude_disks=()).state is DomainState.RUNNING
    domain.suspend()
    assert domain.state() is DomainState.PAUSED
    domain.destroy()
    domain.destroy()
    assert domain.live_xml() == ""
    with pytest.raises(DomainStateChanged):
        domain.suspend()


def test_a_transient_domain_has_both_forms_and_vanishes(make: Maker, folder: Path) -> None:
    """A transient domain is inspected like any other, and is not found any more once it ended."""
    domain = make.transient(f"read-{TAG}-transient", disk("vda", qcow2(folder / "a.qcow2")))
    facts = inspect(domain, exclude_disks=())
    assert (facts.persistent, facts.state) == (False, DomainState.PAUSED)
    assert facts.inactive_xml
    assert facts.inactive_xml != facts.live_xml
    assert [disk.verdict for disk in facts.disks] == [Verdict.COVERED]
    domain.destroy()
    with pytest.raises(DomainNotFound):
        domain.state()


def test_a_silent_agent_is_a_typed_error(make: Maker) -> None:
    """A guest without an agent behind its channel raises AgentUnresponsive in bounded time, from every agent call."""
    channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    domain = make.define(f"read-{TAG}-mute", channel)
    domain.start()
    assert not domain.agent_connected()
    domain.agent_timeout(2)
    for call in (domain.agent_ping, domain.freeze_status, domain.freeze, domain.thaw, domain.filesystems):
        with pytest.raises(AgentUnresponsive) as caught:
            call()
        assert caught.value.code == codes.Code.AGENT_UNRESPONSIVE


def test_a_saved_domain_is_known(make: Maker, folder: Path) -> None:
    """A domain whose memory was saved is shut off, marked, and its saved definition names its disks."""
    image = qcow2(folder / "a.qcow2")
    domain = make.define(f"read-{TAG}-saved", disk("vda", image), start=True)
    assert domain.saved() is None
    virsh(URI, "managedsave", domain.uuid)
    facts = inspect(domain, exclude_disks=())
    assert (facts.state, facts.managed_save) == (DomainState.SHUT_OFF, True)
    saved = domain.saved()
    assert saved is not None
    assert saved.disks[0].image.path == str(image)


def test_snapshots_and_checkpoints_are_listed(make: Maker, folder: Path) -> None:
    """Names of libvirt's own snapshots and checkpoints are read."""
    domain = make.define(f"read-{TAG}-points", disk("vda", qcow2(folder / "a.qcow2")), start=True)
    virsh(URI, "checkpoint-create-as", domain.uuid, "a-checkpoint")
    facts = inspect(domain, exclude_disks=())
    assert (facts.snapshots, facts.checkpoints) == ((), ("a-checkpoint",))
    virsh(URI, "checkpoint-delete", domain.uuid, "a-checkpoint")
    domain.destroy()
    virsh(URI, "snapshot-create-as", domain.uuid, "a-snapshot")
    assert inspect(domain, exclude_disks=()).snapshots == ("a-snapshot",)


UEFI = """<os><type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{nvram}</nvram></os><features><acpi/></features>"""


def test_nvram_and_tpm_state_are_where_libvirt_keeps_them(make: Maker, folder: Path) -> None:
    """NVRAM and TPM state appear at the first start, exist where inspection says, and stay after the shut-off."""
    nvram = folder / "VARS.fd"
    tpm = "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"
    domain = make.define(f"read-{TAG}-uefi", tpm, more=UEFI.format(nvram=nvram))
    facts = inspect(domain, exclude_disks=())
    assert (facts.boot_files, facts.tpm_dir) == ((), "")
    domain.start(paused=True)
    running = inspect(domain, exclude_disks=())
    domain.destroy()
    resting = inspect(domain, exclude_disks=())
    for facts in (running, resting):
        assert [(file.role, file.path) for file in facts.boot_files] == [("nvram", str(nvram))]
        assert (Path(facts.tpm_dir) / "tpm2-00.permall").is_file()


def test_direct_boot_files_are_listed_and_must_exist(make: Maker, folder: Path) -> None:
    """Kernel and initrd of a direct boot are found, and a missing one is named."""
    kernel, initrd = folder / "vmlinuz", folder / "initrd.img"
    kernel.touch()
    initrd.touch()
    machine = "<type arch='x86_64' machine='pc'>hvm</type>"
    more = f"<os>{machine}<kernel>{kernel}</kernel><initrd>{initrd}</initrd></os>"
    domain = make.define(f"read-{TAG}-direct", more=more)
    facts = inspect(domain, exclude_disks=())
    assert [(file.role, file.path) for file in facts.boot_files] == [("kernel", str(kernel)), ("initrd", str(initrd))]
    initrd.unlink()
    with pytest.raises(DiskMissing) as caught:
        inspect(domain, exclude_disks=())
    assert "initrd" in caught.value.brief
    assert str(initrd) in caught.value.evidence
