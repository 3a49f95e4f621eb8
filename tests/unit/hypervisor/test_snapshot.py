"""Names of overlays, the snapshot's request, and definitions that are pointed back."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import DomainXmlError, SnapshotFailed
from infra.hypervisor.definition import with_base
from infra.hypervisor.domain_xml import parse_domain
from infra.hypervisor.snapshot import overlay_path, require_free_paths, snapshot_xml
from infra.model import Disk, DomainFacts, DomainState, Image, ImageKind, Overlay, Verdict

DIR = Path("/var/lib/overlays")


def image(path: str, kind: ImageKind = ImageKind.FILE) -> Image:
    """An image of no size."""
    return Image(path, "qcow2", kind, 0, 0)


def test_an_overlay_lies_beside_its_base() -> None:
    """Its name tells base, disk, maker and run; AppArmor wants its ending."""
    path = overlay_path(image("/images/my web.qcow2"), "vda", run_id="00ff", overlay_dir=DIR)
    assert path == "/images/my web.qcow2.vda.vmborg-00ff.qcow2"


def test_an_overlay_of_a_device_goes_into_the_configured_folder() -> None:
    """Nothing is ever put into /dev."""
    path = overlay_path(image("/dev/vg/data", ImageKind.BLOCK), "vdb", run_id="00ff", overlay_dir=DIR)
    assert path == "/var/lib/overlays/data.vdb.vmborg-00ff.qcow2"


_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=255).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) <= 255
)


@given(
    names=st.lists(_names, min_size=2, max_size=2),
    kind=st.sampled_from(ImageKind),
    run=st.text("0123456789abcdef", min_size=8, max_size=8),
)
def test_overlays_never_share_a_name(names: list[str], kind: ImageKind, run: str) -> None:
    """Two disks of a run, two runs: different names, none longer than a file system takes, none that of a base."""
    one, two = (image(f"/i/{name}", kind) for name in names)
    paths = [
        overlay_path(one, "vda", run_id=run, overlay_dir=DIR),
        overlay_path(two, "vdb", run_id=run, overlay_dir=DIR),
        overlay_path(one, "vda", run_id=f"{run}0", overlay_dir=DIR),
    ]
    assert len({*paths, one.path}) == 4
    assert all(len(Path(path).name.encode()) <= 255 for path in paths)
    assert all(Path(path).parent == (Path("/i") if kind is ImageKind.FILE else DIR) for path in paths)


def facts(*disks: Disk) -> DomainFacts:
    """A running domain with these disks."""
    return DomainFacts("u", "n", DomainState.RUNNING, persistent=True, live_xml="", inactive_xml="", disks=disks)


def test_every_disk_is_named_in_the_request() -> None:
    """A disk without an overlay is named `no`: left out, libvirt would take a snapshot of it too."""
    disks = [
        Disk(target, "disk", verdict, "", "/i/a")
        for target, verdict in zip(("vda", "vdb", "vdc", "sda"), Verdict, strict=False)
    ]
    made = Overlay("vda", "/i/a", ImageKind.FILE, "raw", "/i/<&'\"> o.qcow2")
    request = fromstring(snapshot_xml(facts(*disks), [made], run_id="00c0ffee"))
    assert {disk.get("name"): disk.get("snapshot") for disk in request.iter("disk")} == {
        "vda": "external", "vdb": "no", "vdc": "no", "sda": "no",
    }  # fmt: skip
    assert [source.get("file") for source in request.iter("source")] == [made.path]
    assert [driver.get("type") for driver in request.iter("driver")] == ["qcow2"]


@pytest.mark.parametrize("what", ["file", "folder", "dangling link"])
def test_what_lies_at_an_overlays_path_stays(tmp_path: Path, what: str) -> None:
    """Nothing is overwritten, whatever it is; a free path is no error."""
    path = tmp_path / "o.qcow2"
    made = Overlay("vda", "/i/a", ImageKind.FILE, "raw", str(path))
    require_free_paths([made])
    {"file": path.touch, "folder": path.mkdir, "dangling link": lambda: path.symlink_to("nowhere")}[what]()
    with pytest.raises(SnapshotFailed) as caught:
        require_free_paths([made])
    assert str(path) in caught.value.brief


DEFINITION = """<domain type="kvm" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <metadata><m:x xmlns:m="urn:m">kept &amp; unchanged</m:x></metadata>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" cache="none"/>
      <source file="/o/vda.qcow2" index="3"/>{backing}
      <target dev="vda" bus="virtio"/>
    </disk>
    <disk type="file" device="disk">
      <source file="/o/vda.qcow2"/>
      <target dev="vdb" bus="virtio"/>
    </disk>
  </devices>
  <qemu:commandline><qemu:arg value="-s"/></qemu:commandline>
</domain>"""
FILE = Overlay("vda", "/i/a.raw", ImageKind.FILE, "raw", "/o/vda.qcow2")
BLOCK = Overlay("vda", "/dev/vg/a", ImageKind.BLOCK, "raw", "/o/vda.qcow2")


def corrected(overlay: Overlay, backing: str = "") -> str:
    """DEFINITION with its disk put back, where /pool/vol is the base's path."""
    return with_base(DEFINITION.format(backing=backing), overlay, volume_path=lambda *name: "/".join(("", *name)))


@pytest.mark.parametrize("overlay", [FILE, BLOCK])
def test_a_definition_gets_its_base_back(overlay: Overlay) -> None:
    """Path, type and format of the base; other disks, metadata, namespaces and qemu's arguments stay as they are."""
    xml = corrected(overlay)
    disk = parse_domain(xml).disk("vda")
    assert disk is not None
    assert (disk.image.path, disk.image.kind, disk.image.format) == (overlay.base, overlay.base_kind, "raw")
    attribute = "file" if overlay is FILE else "dev"
    expected = (
        DEFINITION.format(backing="")
        .replace('type="file" device', f'type="{overlay.base_kind}" device', 1)
        .replace('type="qcow2"', 'type="raw"')
        .replace('file="/o/vda.qcow2" index="3"', f'{attribute}="{overlay.base}"')
    )
    assert ET.canonicalize(xml) == ET.canonicalize(expected)
    assert '<m:x xmlns:m="urn:m">kept &amp; unchanged</m:x>' in xml


def test_what_libvirt_kept_of_the_base_is_taken() -> None:
    """Labels and encryption of the base's source come back with it, its backing stores do not."""
    kept = "<seclabel model='dac' relabel='no'/><encryption format='luks'/>"
    source = f"<source file='/i/a.raw' index='1'>{kept}</source>"
    backing = f"<backingStore type='file'><format type='raw'/>{source}<backingStore/></backingStore>"
    found = fromstring(corrected(FILE, backing)).find("devices/disk/source")
    assert found is not None
    assert found.attrib == {"file": "/i/a.raw"}
    assert [child.tag for child in found] == ["seclabel", "encryption"]
    assert "backingStore" not in corrected(FILE, backing)


def test_what_libvirt_kept_of_another_image_is_not_taken() -> None:
    """Only the recorded base counts."""
    backing = "<backingStore type='file'><source file='/i/other'/></backingStore>"
    disk = parse_domain(corrected(FILE, backing)).disk("vda")
    assert disk is not None
    assert disk.image.path == FILE.base
    assert disk.backing == ()


def test_a_volume_is_named_as_one_again() -> None:
    """A base that the definition named by pool and volume is named so again."""
    backing = "<backingStore type='volume'><source pool='i' volume='a.raw'/></backingStore>"
    disk, *_ = fromstring(corrected(FILE, backing)).iter("disk")
    assert disk.get("type") == "volume"
    assert [source.attrib for source in disk.iter("source")] == [{"pool": "i", "volume": "a.raw"}]


def test_a_disk_without_driver_gets_one() -> None:
    """libvirt takes a disk without a stated format for raw; a qcow2 base must be named."""
    xml = DEFINITION.format(backing="").replace('<driver name="qemu" type="qcow2" cache="none"/>', "")
    back = with_base(xml, Overlay("vda", "/i/a", ImageKind.FILE, "qcow2", "/o/vda.qcow2"), volume_path=lambda *_: "")
    disk = parse_domain(back).disk("vda")
    assert disk is not None
    assert disk.image.format == "qcow2"


def test_a_definition_without_the_overlay_is_not_touched() -> None:
    """Not a letter changes."""
    other = Overlay("vdc", "/i/c", ImageKind.FILE, "raw", "/o/vdc.qcow2")
    xml = DEFINITION.format(backing="")
    assert with_base(xml, other, volume_path=lambda *_: "") is xml


@pytest.mark.parametrize("xml", ["", "<domain", "<network/>", "<!DOCTYPE d [<!ENTITY e 'x'>]><domain>&e;</domain>"])
def test_what_is_no_definition_is_refused(xml: str) -> None:
    """Never a traceback of the parser."""
    with pytest.raises(DomainXmlError):
        with_base(xml, FILE, volume_path=lambda *_: "")
