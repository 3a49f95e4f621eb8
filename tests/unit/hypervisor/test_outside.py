"""Storage that is no <disk>."""

import pytest

from infra.hypervisor.domain_xml import parse_domain
from infra.hypervisor.outside import outside_disks, outside_targets
from infra.model import Verdict
from tests.unit.hypervisor.recorded import NAMES, domain, xml


def test_hidden_storage_is_found_and_named() -> None:
    """Drives on qemu's command line, SCSI devices handed through and persistent memory are all reported."""
    found = outside_targets(xml("hidden"))
    assert set(found) == {"qemu:commandline", "scsi_host0:0:0:3", "iqn.2026-01.example:tape/0", "nvdimm0"}
    assert "-drive" in found["qemu:commandline"]
    assert "/srv/pmem/hidden" in found["nvdimm0"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hidden"])
def test_ordinary_domains_hide_nothing(name: str) -> None:
    """No recorded ordinary definition raises a false alarm."""
    assert outside_targets(xml(name)) == {}


@pytest.mark.parametrize(
    ("inner", "target"),
    [
        ("<os><nvram type='network'><source protocol='iscsi' name='x'/></nvram></os>", "nvram"),
        ("<devices><tpm><backend type='external'/></tpm></devices>", "tpm"),
        ("<devices><tpm><backend type='emulator'><source type='file' path='/t'/></backend></tpm></devices>", "tpm"),
    ],
)
def test_firmware_state_out_of_reach_is_found(inner: str, target: str) -> None:
    """UEFI variables and TPM state that cannot be copied are reported, not forgotten."""
    assert list(outside_targets(f"<domain>{inner}</domain>")) == [target]


def test_hidden_storage_makes_a_run_partial_unless_excluded() -> None:
    """Each piece is uncovered, and excluded once the configuration names it."""
    inactive = domain("hidden")
    found = outside_disks(xml("hidden"), live=None, inactive=inactive, exclude=["nvdimm0"])
    verdicts = {disk.target: disk.verdict for disk in found}
    assert verdicts.pop("nvdimm0") is Verdict.EXCLUDED
    assert set(verdicts.values()) == {Verdict.UNCOVERED}


def _domain(*disks: str) -> str:
    return f"<domain><devices>{''.join(disks)}</devices></domain>"


FIRST = "<disk><source file='/a'/><target dev='vda'/></disk>"
SECOND = "<disk><source file='/b'/><target dev='vdb'/></disk>"
DRIVE = "<disk device='cdrom'><source file='/c'/><target dev='hda'/></disk>"


def test_a_disk_of_the_next_start_only_is_reported() -> None:
    """A disk that the running guest does not have yet is uncovered; a CD-ROM drive is not worth a word."""
    inactive = _domain(FIRST, SECOND, DRIVE)
    found = outside_disks(inactive, live=parse_domain(_domain(FIRST)), inactive=parse_domain(inactive), exclude=())
    assert [(disk.target, disk.verdict, disk.source) for disk in found] == [("vdb", Verdict.UNCOVERED, "/b")]
    assert "next start" in found[0].reason


def test_a_shut_off_domain_has_no_disk_of_the_next_start_only() -> None:
    """Without a running guest every disk of the definition is an ordinary one."""
    inactive = _domain(FIRST, SECOND)
    assert outside_disks(inactive, live=None, inactive=parse_domain(inactive), exclude=()) == ()
