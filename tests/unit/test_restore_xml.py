"""An archived definition, fitted to its new place."""

import uuid as uuids
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import DomainXmlError, UnsafeArchive
from infra.hypervisor.restore_xml import DiskPlace, RewritePlan, rewrite
from infra.model import ImageKind

OLD_UUID = "11111111-2222-3333-4444-555555555555"
NEW_UUID = "99999999-8888-7777-6666-555555555555"
LIBOSINFO = "http://libosinfo.org/xmlns/libvirt/domain/1.0"

DOMAIN = f"""
<domain type='kvm' id='7'>
  <name>web</name>
  <uuid>{OLD_UUID}</uuid>
  <genid>43dc0cf8-809b-4adb-9bea-a9abb5f3d90e</genid>
  <metadata><libosinfo:libosinfo xmlns:libosinfo='{LIBOSINFO}'>
    <libosinfo:os id='debian12'/></libosinfo:libosinfo></metadata>
  <memory unit='KiB'>262144</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>
    <kernel>/srv/boot/vmlinuz</kernel>
    <cmdline>console=ttyS0 init=/bin/sh</cmdline>
  </os>
  <sysinfo type='smbios'><system><entry name='uuid'>{OLD_UUID}</entry></system></sysinfo>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/srv/vm/web.qcow2' index='3'><seclabel model='dac' relabel='no'/></source>
      <backingStore type='file'><format type='qcow2'/><source file='/srv/vm/template.qcow2'/>
        <backingStore/></backingStore>
      <target dev='vda' bus='virtio'/><serial>root</serial><boot order='1'/>
    </disk>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source dev='/dev/vg/web'/><target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/vm/scratch.img'/><target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/iso/here.iso'/><target dev='sda' bus='sata'/><readonly/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/iso/gone.iso'/><target dev='sdb' bus='sata'/><readonly/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:aa:bb:cc'/><source bridge='br0'/><target dev='web0'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/></virtualport>
    </interface>
    <interface type='network'><mac address='52:54:00:aa:bb:cd'/><source network='default'/>
    </interface>
    <serial type='file'><source path='/srv/log/web.log' append='off'/><target port='0'/></serial>
    <console type='pty' tty='/dev/pts/3'><source path='/dev/pts/3'/>
      <target type='serial' port='0'/></console>
    <serial type='pty'><log file='/var/log/libvirt/qemu/web-serial.log'/><target port='1'/></serial>
    <channel type='unix'>
      <source mode='bind'
        path='/var/lib/libvirt/qemu/channel/target/domain-7-web/org.qemu.guest_agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <graphics type='vnc' port='5901' autoport='no' listen='127.0.0.1'/>
    <vsock model='virtio'><cid auto='no' address='3'/></vsock>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+107</label></seclabel>
</domain>
"""

COPY = RewritePlan(
    name="web-2",
    uuid=NEW_UUID,
    disks={
        "vda": DiskPlace("/new/web-2-vda.qcow2", "qcow2", ImageKind.FILE),
        "vdb": DiskPlace("/new/web-2-vdb.img", "raw", ImageKind.FILE),
    },
    boot_files={"nvram": "/var/lib/libvirt/qemu/nvram/web-2_VARS.fd", "kernel": "/new/web-2-kernel"},
    copy=True,
    leave_out=frozenset({"vdc"}),
    missing_media=frozenset({"sdb"}),
)
IN_PLACE = RewritePlan(
    name="web", uuid=OLD_UUID, disks={"vda": DiskPlace("/srv/vm/web.qcow2", "qcow2", ImageKind.FILE)}
)


def _one(parent: Element, path: str) -> Element:
    """The element that must be there."""
    (element,) = parent.findall(path)
    return element


def _disks(root: Element) -> dict[str, Element]:
    return {_one(disk, "target").get("dev", ""): disk for disk in root.iterfind("devices/disk")}


def _copy() -> Element:
    return fromstring(rewrite(DOMAIN, COPY).xml)


def test_copy_shares_no_identity() -> None:
    """Name, UUID (also in sysinfo), generation id and MAC addresses of a copy are new."""
    root = _copy()
    assert root.findtext("name") == "web-2"
    assert root.findtext("uuid") == NEW_UUID
    assert root.findtext("sysinfo/system/entry") == NEW_UUID
    assert root.get("id") is None
    assert uuids.UUID(root.findtext("genid")) != uuids.UUID("43dc0cf8-809b-4adb-9bea-a9abb5f3d90e")
    addresses = [mac.get("address", "") for mac in root.iterfind("devices/interface/mac")]
    assert len(set(addresses)) == 2
    assert all(address.startswith("52:54:00:") for address in addresses)
    assert not {"52:54:00:aa:bb:cc", "52:54:00:aa:bb:cd"} & set(addresses)


def test_copy_names_only_restored_disks() -> None:
    """The disks of a copy are the restored ones at their new paths; one that was not restored is left out."""
    result = rewrite(DOMAIN, COPY)
    disks = _disks(fromstring(result.xml))
    assert set(disks) == {"vda", "vdb", "sda", "sdb"}
    assert _one(disks["vda"], "source").get("file") == "/new/web-2-vda.qcow2"
    assert _one(disks["vda"], "source").get("index") is None
    assert disks["vda"].find("backingStore") is None
    assert _one(disks["vda"], "boot").get("order") == "1"
    assert _one(disks["vda"], "driver").get("discard") == "unmap"
    assert "/srv/vm/" not in result.xml
    assert any("vdc" in warning and "/srv/vm/scratch.img" in warning for warning in result.warnings)


def test_copy_of_a_block_device_is_a_file() -> None:
    """A disk that was a block device becomes a file in the copy: type, source attribute and driver."""
    disk = _disks(_copy())["vdb"]
    assert disk.get("type") == "file"
    assert _one(disk, "source").attrib == {"file": "/new/web-2-vdb.img"}
    assert _one(disk, "driver").get("type") == "raw"


def test_missing_medium_is_ejected_and_a_present_one_stays() -> None:
    """A CD-ROM whose image is not on this host becomes an empty drive, and the warning names the image."""
    result = rewrite(DOMAIN, COPY)
    disks = _disks(fromstring(result.xml))
    assert _one(disks["sda"], "source").get("file") == "/srv/iso/here.iso"
    assert disks["sdb"].find("source") is None
    assert any("/srv/iso/gone.iso" in warning for warning in result.warnings)


@pytest.mark.parametrize(("plan", "more", "stays"), [(COPY, "", 0), (COPY, "<readonly/>", 1), (IN_PLACE, "", 1)])
def test_copy_does_not_write_to_the_originals_floppy(plan: RewritePlan, more: str, stays: int) -> None:
    """A copy is without a floppy that guests can write to; one that they can only read stays, and so does the own."""
    floppy = f"<disk type='file' device='floppy'><source file='/srv/a.vfd'/><target dev='fda'/>{more}</disk>"
    result = rewrite(DOMAIN.replace("<interface", f"{floppy}<interface", 1), plan)
    assert len(_disks(fromstring(result.xml))["fda"].findall("source")) == stays
    assert any("/srv/a.vfd" in warning for warning in result.warnings) is not bool(stays)


def test_copy_has_its_own_firmware_state_and_kernel() -> None:
    """NVRAM and kernel point to the restored files; the loader, the template and the command line stay."""
    root = _copy()
    assert root.findtext("os/nvram") == "/var/lib/libvirt/qemu/nvram/web-2_VARS.fd"
    assert _one(root, "os/nvram").get("template") == "/usr/share/OVMF/OVMF_VARS_4M.fd"
    assert root.findtext("os/kernel") == "/new/web-2-kernel"
    assert root.findtext("os/cmdline") == "console=ttyS0 init=/bin/sh"


def test_copy_shares_no_sockets_logs_or_ports() -> None:
    """Character devices, tap names, ports and context ids of the original do not appear in the copy."""
    result = rewrite(DOMAIN, COPY)
    root = fromstring(result.xml)
    serial, second = root.findall("devices/serial")
    assert serial.get("type") == "pty"
    assert serial.find("source") is None
    assert _one(second, "log").get("file") == "/var/log/libvirt/qemu/web-2-serial.log"
    assert _one(root, "devices/console").get("tty") is None
    assert root.find("devices/channel/source") is None
    assert _one(root, "devices/channel/target").get("name") == "org.qemu.guest_agent.0"
    assert root.find("devices/interface/target") is None
    assert _one(root, "devices/interface/virtualport/parameters").attrib == {}
    assert _one(root, "devices/graphics").get("port") is None
    assert _one(root, "devices/vsock/cid").attrib == {"auto": "yes"}
    assert any("/srv/log/web.log" in warning for warning in result.warnings)


def test_metadata_and_tpm_stay() -> None:
    """Metadata of other programs keeps its namespace, and the TPM device stays as it is."""
    root = _copy()
    assert _one(root, f"metadata/{{{LIBOSINFO}}}libosinfo/{{{LIBOSINFO}}}os").get("id") == "debian12"
    assert _one(root, "devices/tpm/backend").get("version") == "2.0"


def test_in_place_keeps_identity() -> None:
    """In place, name, UUID, MAC addresses, uncovered disks, logs and ports are the archived ones."""
    result = rewrite(DOMAIN, IN_PLACE)
    root = fromstring(result.xml)
    assert root.findtext("uuid") == OLD_UUID
    assert [mac.get("address") for mac in root.iterfind("devices/interface/mac")] == [
        "52:54:00:aa:bb:cc",
        "52:54:00:aa:bb:cd",
    ]
    assert _one(_disks(root)["vdc"], "source").get("file") == "/srv/vm/scratch.img"
    assert root.findall("devices/serial")[0].get("type") == "file"
    assert _one(root, "devices/graphics").get("port") == "5901"
    assert root.find("seclabel") is None
    assert result.warnings == ()


def test_nvram_with_a_source_element_is_understood() -> None:
    """The newer form <nvram type='file'><source file=…/></nvram> gets its new path in the source."""
    old = ">/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>"
    new = " type='file'><source file='/var/lib/libvirt/qemu/nvram/web_VARS.fd'/></nvram>"
    root = fromstring(rewrite(DOMAIN.replace(old, new), COPY).xml)
    assert _one(root, "os/nvram/source").get("file") == "/var/lib/libvirt/qemu/nvram/web-2_VARS.fd"


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE domain SYSTEM "http://example.org/domain.dtd">',
        '<!DOCTYPE domain [<!ENTITY secret SYSTEM "file:///etc/shadow">]>',
        '<!DOCTYPE domain [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
    ],
)
def test_a_dtd_is_refused(declaration: str) -> None:
    """A definition with a document type or entities is refused before anything of it is used."""
    with pytest.raises(UnsafeArchive):
        rewrite(declaration + DOMAIN, COPY)


@pytest.mark.parametrize("text", ["", "<domain", "<network/>", "<domain><name>x</name></domain>"])
def test_what_is_no_domain_is_refused(text: str) -> None:
    """Text that is not the definition of a domain gives a typed error."""
    with pytest.raises(DomainXmlError):
        rewrite(text, COPY)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40))
def test_any_name_survives(name: str) -> None:
    """Every name without control characters comes out of the rewritten definition as it went in."""
    plan = RewritePlan(name=name, uuid=NEW_UUID, disks=COPY.disks, copy=True, leave_out=COPY.leave_out)
    assert fromstring(rewrite(DOMAIN, plan).xml).findtext("name") == name


@pytest.mark.parametrize(
    "variables",
    [
        "<nvram template='/usr/share/V.fd'>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>",
        "<nvram type='file' template='/usr/share/V.fd'><source file='/srv/web_VARS.fd'/></nvram>",
    ],
)
def test_firmware_variables_that_were_not_archived_are_not_shared(variables: str) -> None:
    """Without archived variables a copy names none, which would be its original's; in place the domain's own stay."""
    own = "<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>"
    xml = DOMAIN.replace(own, variables)
    root = fromstring(rewrite(xml, RewritePlan("web-2", NEW_UUID, COPY.disks, copy=True)).xml)
    assert _one(root, "os/nvram").attrib == {"template": "/usr/share/V.fd"}
    assert list(_one(root, "os/nvram")) == []
    assert not _one(root, "os/nvram").text
    assert "web_VARS.fd" in rewrite(xml, RewritePlan("web", OLD_UUID, IN_PLACE.disks, keep_nvram=True)).xml


def test_only_the_name_of_a_log_is_the_copys() -> None:
    """A VM that is called like a directory of the log's path has its copy's log in that same directory."""
    xml = DOMAIN.replace("<name>web<", "<name>log<").replace("web-serial.log", "log-serial.log")
    root = fromstring(rewrite(xml, RewritePlan("new", NEW_UUID, COPY.disks, copy=True)).xml)
    assert [each.get("file") for each in root.iterfind("devices/serial/log")] == [
        "/var/log/libvirt/qemu/new-serial.new"
    ]
