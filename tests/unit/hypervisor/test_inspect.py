"""The pure parts of inspecting."""

from pathlib import Path

import pytest

from infra.hypervisor.domain_xml import parse_domain
from infra.hypervisor.inspect import SWTPM_DIR, drift, swtpm_root, tpm_dir
from infra.hypervisor.parsed import ParsedDomain, ParsedTpm
from tests.unit.hypervisor.recorded import IMAGES, domain

UUID = "0f3b7a52-54a4-4b47-9a3e-3f9c8f2d1c09"


def _with(path: str, *, flags: str = "", device: str = "disk") -> ParsedDomain:
    source = f"<source file='{path}'/>" if path else ""
    disk = f"<disk device='{device}'>{source}<target dev='vda'/>{flags}</disk>"
    return parse_domain(f"<domain><devices>{disk}</devices></domain>")


@pytest.mark.parametrize(
    ("live", "inactive"),
    [("clone-live", "clone"), ("snapshotted-live", "snapshotted"), ("uefi-live", "uefi"), ("volume-live", "volume")],
)
def test_recorded_pairs_agree(live: str, inactive: str) -> None:
    """A domain and its own definition do not drift, neither on its bases nor in a snapshot nor with transient disks."""
    assert drift(domain(live), domain(inactive)) == ()


def test_a_running_guest_on_another_image_is_drift() -> None:
    """A live source that is not the persistent one is found, and both are named."""
    found = drift(domain("snapshotted-live"), domain("clone"))
    assert len(found) == 2
    assert f"{IMAGES}/clone.run1.qcow2" in found[0]
    assert f"{IMAGES}/clone.qcow2" in found[0]


def test_our_own_overlay_is_no_drift() -> None:
    """Where either side is on an overlay of an open journal entry, recovery decides, not the inspection."""
    ours = {f"{IMAGES}/clone.run1.qcow2", f"{IMAGES}/web.run1.qcow2"}
    assert drift(domain("snapshotted-live"), domain("clone"), ours=ours) == ()
    assert drift(domain("clone-live"), domain("snapshotted"), ours=ours) == ()


@pytest.mark.parametrize(("flags", "device"), [("<readonly/>", "disk"), ("<transient/>", "disk"), ("", "cdrom")])
def test_what_a_backup_never_moves_cannot_drift(flags: str, device: str) -> None:
    """Media come and go and transient disks run on libvirt's own overlay: neither is drift."""
    assert drift(_with("/a", flags=flags, device=device), _with("/b", flags=flags, device=device)) == ()


def test_a_hot_plugged_disk_is_no_drift() -> None:
    """A disk that the definition does not know may be backed up: there is no definition to disagree with."""
    assert drift(_with("/a"), parse_domain("<domain/>")) == ()


@pytest.mark.parametrize(
    ("tpm", "expected"),
    [
        (ParsedTpm(version="2.0"), f"/root/{UUID}/tpm2"),
        (ParsedTpm(version="1.2"), f"/root/{UUID}/tpm1.2"),
        (ParsedTpm(version="2.0", source="/srv/tpm"), "/srv/tpm"),
    ],
)
def test_the_tpm_folder_follows_libvirts_rule(tpm: ParsedTpm, expected: str) -> None:
    """The state folder is UUID and version below libvirt's root, unless the definition names one."""
    assert tpm_dir(tpm, UUID, root=Path("/root")) == Path(expected)


def test_a_session_keeps_its_tpms_in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """qemu:///system uses the system's folder; a session the user's, wherever XDG puts it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    assert swtpm_root("qemu:///system") == SWTPM_DIR
    assert swtpm_root("qemu+unix:///system?socket=/s") == SWTPM_DIR
    assert swtpm_root("qemu:///session") == Path("/settings/libvirt/qemu/swtpm")
