"""Reading definitions."""

import pytest

from infra.errors import DomainXmlError
from infra.hypervisor.domain_xml import all_paths, all_volumes, disk_sources, is_live, parse_domain
from infra.hypervisor.parsed import ParsedImage
from tests.unit.hypervisor.recorded import IMAGES, NAMES, disk, domain, parsed_disk, xml


@pytest.mark.parametrize("name", NAMES)
def test_each_recorded_definition_has_name_uuid_and_named_disks(name: str) -> None:
    """Every recorded definition gives a name, a UUID and a distinct target for each disk."""
    found = domain(name)
    targets = [each.target for each in found.disks]
    assert found.name
    assert len(found.uuid) == 36
    assert all(targets)
    assert len(set(targets)) == len(targets)


@pytest.mark.parametrize("name", NAMES)
def test_live_definitions_are_told_from_inactive_ones(name: str) -> None:
    """A definition counts as live exactly when it was recorded from a running domain."""
    assert is_live(xml(name)) == domain(name).live == name.endswith("-live")


def test_every_disk_is_read_with_its_attributes() -> None:
    """Target, device, bus, serial, flags, format and source of every kind of local disk are read."""
    rows = [
        (each.target, each.device, each.bus, each.serial, each.readonly, each.shareable, each.image.kind)
        for each in domain("multi").disks
    ]
    assert rows == [
        ("vda", "disk", "virtio", "ROOT-1", False, False, "file"),
        ("vdb", "disk", "virtio", "", False, False, "file"),
        ("vdc", "disk", "virtio", "", True, False, "file"),
        ("vdd", "disk", "virtio", "", False, True, "file"),
        ("sda", "disk", "scsi", "", False, False, "block"),
        ("hda", "cdrom", "ide", "", True, False, "file"),
        ("hdb", "cdrom", "ide", "", True, False, ""),
        ("fda", "floppy", "fdc", "", False, False, "file"),
        ("fdb", "floppy", "fdc", "", False, False, ""),
    ]


def test_sources_are_paths_and_an_empty_drive_has_none() -> None:
    """A file's and a device's path are read, and an empty drive's source is the empty string."""
    sources = disk_sources(xml("multi"))
    assert sources["vda"] == f"{IMAGES}/web.qcow2"
    assert sources["sda"] == "/dev/vg0/web-data"
    assert not sources["hdb"]


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("vda", "rbd://ceph1.example:6789,ceph2.example:6789/vms/web-root"),
        ("vdb", "nbd:///run/nbd.sock/export"),
        ("vdc", "iscsi://san.example:3260/iqn.2026-01.example:disks/1"),
        ("hda", "https://mirror.example:443/iso/debian.iso"),
    ],
)
def test_network_disks_have_a_readable_address_and_are_not_local(target: str, address: str) -> None:
    """A network disk's source reads like an address, and is never taken for a path of this host."""
    image = disk("network", target).image
    assert (image.kind, image.path, image.local) == ("network", address, False)


@pytest.mark.parametrize(
    ("target", "kind", "path"),
    [
        ("vda", "dir", "/srv/share"),
        ("vdb", "vhostuser", "/run/vhost-blk.sock"),
        ("vdc", "nvme", "nvme://0000:01:00.0/1"),
        ("vdd", "file", f"{IMAGES}/old.vmdk"),
    ],
)
def test_unusual_kinds_are_read_with_their_place(target: str, kind: str, path: str) -> None:
    """Folders, vhost-user sockets and NVMe controllers are read as what they are."""
    image = disk("odd", target).image
    assert (image.kind, image.path) == (kind, path)


def test_a_hardware_queue_is_read() -> None:
    """A vhost-vdpa disk (libvirt 9.8) keeps its kind and device."""
    found = parsed_disk("<source dev='/dev/vhost-vdpa-0'/>", kind="vhostvdpa").image
    assert (found.kind, found.path, found.local) == ("vhostvdpa", "/dev/vhost-vdpa-0", False)


def test_slices_and_transient_disks_are_seen() -> None:
    """A disk on a slice and a transient disk are marked, their neighbours are not."""
    assert disk("odd", "vde").image.sliced
    assert disk("odd", "vdf").transient
    assert not disk("odd", "vdd").image.sliced
    assert not disk("odd", "vdd").transient


@pytest.mark.parametrize("target", ["vda", "vdb"])
def test_encryption_is_seen_in_both_of_its_places(target: str) -> None:
    """Encryption is read from the source as well as from the disk, where older definitions have it."""
    assert disk("encrypted", target).image.encryption == "luks"


def test_encryption_in_the_old_place_is_seen() -> None:
    """An <encryption> beside <source> counts."""
    found = parsed_disk("<driver type='qcow2'/><source file='/a'/><encryption format='luks'/>")
    assert found.image.encryption == "luks"


def test_names_and_paths_are_decoded() -> None:
    """Entities, unicode and percent signs come out as the characters they stand for."""
    found = domain("entities")
    assert found.name == "Büro & <Lager> 100%"
    assert found.disks[0].image.path == f"{IMAGES}/a&b <ü>.qcow2"


def test_blanks_of_a_name_are_kept() -> None:
    """A name's own blanks belong to it."""
    assert parse_domain("<domain><name> blank name </name></domain>").name == " blank name "


def test_a_live_chain_is_read_to_its_end() -> None:
    """A live definition gives each backing file with its format, and says that the list is complete."""
    found = disk("clone-live", "vda")
    assert found.image.path == f"{IMAGES}/clone.qcow2"
    assert found.backing == (
        ParsedImage(kind="file", path=f"{IMAGES}/middle.qcow2", format="qcow2"),
        ParsedImage(kind="file", path=f"{IMAGES}/template.qcow2", format="qcow2"),
    )
    assert found.backing_complete


def test_an_inactive_definition_says_nothing_of_the_chain() -> None:
    """Without <backingStore> nothing is claimed about backing files."""
    found = disk("clone", "vda")
    assert (found.backing, found.backing_complete) == ((), False)


def test_a_snapshot_shows_in_both_definitions() -> None:
    """After a snapshot the overlay is the source and the base the first backing file, live and inactive."""
    for name in ("snapshotted-live", "snapshotted"):
        found = disk(name, "vda")
        assert found.image.path == f"{IMAGES}/clone.run1.qcow2"
        assert found.backing[0].path == f"{IMAGES}/clone.qcow2"


def test_a_ready_mirror_is_told_from_one_that_copies() -> None:
    """A mirror is ready only when libvirt says yes: not while it copies, pivots or ends."""
    text = xml("mirror-live")
    ready = parse_domain(text).disk("vda")
    assert ready is not None
    assert ready.mirror is not None
    assert (ready.mirror.ready, ready.mirror.job, ready.mirror.image.path) == (
        True,
        "active-commit",
        f"{IMAGES}/clone.qcow2",
    )
    for value in ("", " ready='pivot'", " ready='abort'"):
        other = parse_domain(text.replace(" ready='yes'", value)).disk("vda")
        assert other is not None
        assert other.mirror is not None
        assert not other.mirror.ready


def test_every_path_of_a_definition_is_found() -> None:
    """Active images, whole chains, mirrors and data files are all among the paths."""
    assert all_paths(xml("mirror-live")) >= {
        f"{IMAGES}/{name}"
        for name in ("clone.run1.qcow2", "clone.qcow2", "middle.qcow2", "template.qcow2", "web.run1.qcow2", "web.qcow2")
    }
    assert all_paths(xml("multi")) >= {"/dev/vg0/web-data", f"{IMAGES}/debian.iso"}
    data = "<disk><source file='/a'><dataStore type='file'><source file='/a.data'/></dataStore></source></disk>"
    assert all_paths(f"<domain><devices>{data}</devices></domain>") == {"/a", "/a.data"}


@pytest.mark.parametrize("name", ["volume", "volume-live"])
def test_a_volume_keeps_its_address_until_somebody_knows_its_path(name: str) -> None:
    """A storage pool's volume is no path by itself, and one once it was looked up."""
    bare = domain(name).disks[0].image
    assert (bare.kind, bare.path, bare.local) == ("volume", "recorded/volume.qcow2", False)
    known = parse_domain(xml(name), volume_path=lambda pool, volume: f"/{pool}/{volume}").disks[0].image
    assert (known.kind, known.path, known.local) == ("volume", "/recorded/volume.qcow2", True)
    assert all_volumes(xml(name)) == {("recorded", "volume.qcow2")}


def test_a_volume_that_is_not_known_stays_an_address() -> None:
    """A look-up without result does not make a volume local."""
    image = parse_domain(xml("volume"), volume_path=lambda _pool, _volume: "").disks[0].image
    assert (image.path, image.local) == ("recorded/volume.qcow2", False)


def test_a_volume_in_a_backing_chain_is_looked_up() -> None:
    """Volumes below the active image get their paths too."""
    store = (
        "<backingStore type='volume'><format type='raw'/><source pool='p' volume='v'/><backingStore/></backingStore>"
    )
    text = f"<domain><devices><disk><source file='/a'/>{store}<target dev='vda'/></disk></devices></domain>"
    found = parse_domain(text, volume_path=lambda pool, volume: f"/{pool}/{volume}").disks[0]
    assert [image.path for image in found.backing] == ["/p/v"]


@pytest.mark.parametrize("name", ["uefi", "uefi-live"])
def test_uefi_and_tpm_are_read(name: str) -> None:
    """Loader, NVRAM file and the TPM's version are read from both definitions."""
    found = domain(name)
    assert found.loader == "/usr/share/OVMF/OVMF_CODE_4M.fd"
    assert found.nvram == ParsedImage(kind="file", path="/var/lib/libvirt/qemu/nvram/secure_VARS.fd", format="raw")
    assert found.tpm is not None
    assert (found.tpm.version, found.tpm.source) == ("2.0", "")


def test_the_newer_form_of_nvram_is_read() -> None:
    """<nvram type='file'> with a <source> (libvirt 8.5) gives the same path as the plain form."""
    text = "<domain><os><nvram type='file' format='qcow2'><source file='/n.qcow2'/></nvram></os></domain>"
    assert parse_domain(text).nvram == ParsedImage(kind="file", path="/n.qcow2", format="qcow2")


def test_nvram_without_a_file_is_none() -> None:
    """A definition that names only the template has no NVRAM file yet."""
    assert parse_domain("<domain><os><nvram template='/t.fd'/></os></domain>").nvram is None


def test_a_tpm_that_was_moved_names_its_place() -> None:
    """A <source> in the TPM's backend (libvirt 10.10) is read."""
    backend = "<backend type='emulator' version='1.2'><source type='dir' path='/srv/tpm'/></backend>"
    found = parse_domain(f"<domain><devices><tpm>{backend}</tpm></devices></domain>").tpm
    assert found is not None
    assert (found.version, found.source) == ("1.2", "/srv/tpm")


def test_a_tpm_of_the_host_is_no_emulated_one() -> None:
    """A TPM handed through has no state of ours."""
    text = "<domain><devices><tpm><backend type='passthrough'/></tpm></devices></domain>"
    assert parse_domain(text).tpm is None


def test_direct_boot_files_are_read() -> None:
    """Kernel, initrd and device tree of a direct boot are read."""
    found = domain("boot")
    assert (found.kernel, found.initrd, found.dtb) == (
        "/boot/guest/vmlinuz",
        "/boot/guest/initrd.img",
        "/boot/guest/board.dtb",
    )


def test_the_agent_counts_only_while_its_channel_is_connected() -> None:
    """A defined channel is no agent; the live state `connected` is."""
    text = xml("clone-live")
    assert (domain("clone").has_agent_channel, domain("clone").agent_connected) == (True, False)
    assert not parse_domain(text).agent_connected
    assert parse_domain(text.replace("state='disconnected'", "state='connected'")).agent_connected
    assert not domain("entities").has_agent_channel


@pytest.mark.parametrize(
    "hostile",
    [
        "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/shadow'>]><domain><name>&x;</name></domain>",
        "<!DOCTYPE domain [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><domain><name>&b;</name></domain>",
        "<!DOCTYPE domain SYSTEM 'http://example.com/x.dtd'><domain/>",
    ],
)
def test_a_dtd_is_refused(hostile: str) -> None:
    """No document type is read, so neither external entities nor expanding ones can do harm."""
    with pytest.raises(DomainXmlError, match="DTD"):
        parse_domain(hostile)


@pytest.mark.parametrize("text", ["", "<domain>", "plain", "<domainsnapshot/>", "<domain/><domain/>", "\0"])
def test_what_is_no_definition_is_refused(text: str) -> None:
    """Text that is not one well-formed <domain> raises a typed error."""
    with pytest.raises(DomainXmlError):
        parse_domain(text)


def test_a_definition_of_nothing_has_empty_facts() -> None:
    """Missing elements read as empty, not as an error."""
    found = parse_domain("<domain/>")
    assert (found.name, found.uuid, found.disks, found.nvram, found.tpm) == ("", "", (), None, None)


def test_a_mirror_into_a_volume_is_looked_up() -> None:
    """The target of a commit into a storage pool's volume is a path like the volume itself."""
    mirror = "<mirror type='volume' job='active-commit' ready='yes'><source pool='p' volume='v'/></mirror>"
    text = f"<domain><devices><disk><source file='/a'/>{mirror}<target dev='vda'/></disk></devices></domain>"
    found = parse_domain(text, volume_path=lambda pool, volume: f"/{pool}/{volume}").disks[0].mirror
    assert found is not None
    assert (found.image.path, found.ready) == ("/p/v", True)
