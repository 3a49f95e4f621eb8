"""What a backup does with each disk."""

import pytest

from infra.errors import UsageError
from infra.hypervisor.disks import check_excluded, classify, image_format, judge, needs_chain
from infra.hypervisor.image_info import ImageInfo
from infra.model import Disk, Image, ImageKind, Verdict
from tests.unit.hypervisor.recorded import IMAGES, NAMES, disk, domain, parsed_disk


def image(path: str, image_format: str = "qcow2") -> Image:
    """An image of 1 MiB."""
    return Image(path=path, format=image_format, kind=ImageKind.FILE, virtual_size=1 << 20, size=1 << 20)


def one(recorded: str, target: str, *infos: ImageInfo) -> Disk:
    """One recorded disk, classified with the chain that was found for it."""
    return classify([disk(recorded, target)], exclude=(), chains={target: infos})[0]


@pytest.mark.parametrize(
    ("recorded", "target", "verdict", "word"),
    [
        ("multi", "vda", Verdict.COVERED, ""),
        ("multi", "vdb", Verdict.COVERED, ""),
        ("multi", "sda", Verdict.COVERED, ""),
        ("multi", "vdc", Verdict.READ_ONLY, "cannot write"),
        ("multi", "vdd", Verdict.UNCOVERED, "shared"),
        ("multi", "hda", Verdict.CDROM, "CD-ROM"),
        ("multi", "hdb", Verdict.EMPTY, "without medium"),
        ("multi", "fda", Verdict.FLOPPY, "floppy"),
        ("multi", "fdb", Verdict.EMPTY, "without medium"),
        ("network", "vda", Verdict.UNCOVERED, "rbd://ceph1.example"),
        ("network", "vdb", Verdict.UNCOVERED, "nbd://"),
        ("network", "hda", Verdict.CDROM, "CD-ROM"),
        ("odd", "vda", Verdict.READ_ONLY, "cannot write"),
        ("odd", "vdb", Verdict.UNCOVERED, "/run/vhost-blk.sock"),
        ("odd", "vdc", Verdict.UNCOVERED, "NVMe"),
        ("odd", "vdd", Verdict.UNCOVERED, "vmdk"),
        ("odd", "vde", Verdict.UNCOVERED, "slice"),
        ("odd", "vdf", Verdict.UNCOVERED, "thrown away"),
        ("odd", "sda", Verdict.UNCOVERED, "SCSI commands"),
        ("clone-live", "vdc", Verdict.UNCOVERED, "thrown away"),
        ("volume", "vda", Verdict.UNCOVERED, "recorded/volume.qcow2"),
        ("encrypted", "vda", Verdict.UNCOVERED, "in the clear"),
        ("encrypted", "vdb", Verdict.UNCOVERED, "in the clear"),
        ("entities", "vda", Verdict.COVERED, ""),
    ],
)
def test_each_kind_of_disk_has_its_verdict(recorded: str, target: str, verdict: Verdict, word: str) -> None:
    """Every kind of disk gets its verdict, and the reason names what a stranger needs to know."""
    found, reason = judge(disk(recorded, target))
    assert found is verdict
    assert word in reason
    assert bool(reason) == bool(word)


@pytest.mark.parametrize("kind", ["vhostvdpa", "dir", "something-new"])
def test_a_kind_without_a_local_image_is_never_covered(kind: str) -> None:
    """A writable disk of a kind that has no image on this host, known or not, is uncovered and says where it is."""
    source = "<source dir='/there'/>" if kind == "dir" else "<source dev='/there'/>"
    found, reason = judge(parsed_disk(f"<driver type='raw'/>{source}", kind=kind))
    assert found is Verdict.UNCOVERED
    assert "/there" in reason


@pytest.mark.parametrize("name", NAMES)
def test_no_disk_is_lost_and_each_uncovered_one_has_a_reason(name: str) -> None:
    """Classification returns every disk in order, and each that is not plainly covered says why."""
    disks = domain(name).disks
    chains = {each.target: [ImageInfo(image(each.image.path))] for each in disks}
    found = classify(disks, exclude=(), chains=chains)
    assert [each.target for each in found] == [each.target for each in disks]
    assert all(each.reason for each in found if each.verdict is not Verdict.COVERED)


def test_an_excluded_disk_is_excluded_whatever_it_is() -> None:
    """A disk that the configuration names is excluded, also where it could not be covered, and its chain not read."""
    for target in ("vda", "vdd", "hda"):
        found = classify([disk("multi", target)], exclude=[target], chains={})[0]
        assert found.verdict is Verdict.EXCLUDED
        assert "exclude_disks" in found.reason
        assert not needs_chain(disk("multi", target), [target])


def test_only_covered_disks_carry_a_chain() -> None:
    """The chain is asked for exactly the disks that will be covered, and stays empty for all others."""
    disks = domain("multi").disks
    wanted = [each.target for each in disks if needs_chain(each, ["vdb"])]
    assert wanted == ["vda", "sda"]
    found = classify(disks, exclude=["vdb"], chains={target: [ImageInfo(image("/x"))] for target in wanted})
    assert [each.target for each in found if each.chain] == wanted


def test_a_disk_without_stated_format_is_raw() -> None:
    """libvirt runs an image without a stated format as raw, so it is read as raw."""
    assert image_format(parsed_disk("<source file='/a'/>")) == "raw"


def test_a_covered_disk_has_its_whole_chain() -> None:
    """Chain, source, bus and serial of a covered disk are handed on."""
    found = one("multi", "vda", ImageInfo(image("/top")), ImageInfo(image("/base", "raw")))
    assert [each.path for each in found.chain] == ["/top", "/base"]
    assert (found.source, found.bus, found.serial) == (f"{IMAGES}/web.qcow2", "virtio", "ROOT-1")


@pytest.mark.parametrize(
    ("info", "word"),
    [
        (ImageInfo(image("/a"), data_file="/a.data"), "/a.data"),
        (ImageInfo(image("/a"), corrupt=True), "corrupt"),
        (ImageInfo(image("/a", "vmdk")), "vmdk"),
        (ImageInfo(image("/a"), backing="nbd://host/x", backing_format="raw"), "nbd://host/x"),
        (ImageInfo(image("/a"), backing='json:{"driver":"raw"}', backing_format="raw"), "json:"),
        (ImageInfo(image("/a"), backing="/base"), "does not record the format"),
    ],
)
def test_a_chain_that_cannot_be_stored_makes_the_disk_uncovered(info: ImageInfo, word: str) -> None:
    """External data files, foreign backing files, unknown formats and damage are found out and named."""
    found = one("multi", "vda", info)
    assert found.verdict is Verdict.UNCOVERED
    assert word in found.reason
    assert found.chain == ()


def test_an_obstacle_deep_in_the_chain_counts() -> None:
    """A template with an external data file cannot be stored, so its clone is uncovered."""
    top = ImageInfo(image("/top"), backing="/base", backing_format="qcow2")
    found = one("multi", "vda", top, ImageInfo(image("/base"), data_file="/d"))
    assert found.verdict is Verdict.UNCOVERED


def chain_of(*names: str) -> list[ImageInfo]:
    """A chain of images in the recorded folder."""
    return [ImageInfo(image(f"{IMAGES}/{name}")) for name in names]


def test_a_live_chain_that_the_images_agree_with_is_covered() -> None:
    """Where the running guest's chain is what the images record, the disk is covered."""
    found = one("clone-live", "vda", *chain_of("clone.qcow2", "middle.qcow2", "template.qcow2"))
    assert found.verdict is Verdict.COVERED


@pytest.mark.parametrize(
    "recorded", [["clone.qcow2"], ["clone.qcow2", "other.qcow2", "template.qcow2"], ["clone.qcow2", "middle.qcow2"]]
)
def test_a_live_chain_that_the_images_contradict_is_uncovered(recorded: list[str]) -> None:
    """Where images record other backing files than the running guest uses, storing them would not restore it."""
    found = one("clone-live", "vda", *chain_of(*recorded))
    assert found.verdict is Verdict.UNCOVERED
    assert "middle.qcow2" in found.reason


def test_excluding_a_disk_that_does_not_exist_is_a_mistake() -> None:
    """A target in exclude_disks that the VM lacks is refused, naming it and the targets there are."""
    with pytest.raises(UsageError) as caught:
        check_excluded(domain("multi").disks, ["vda", "vdz"], others=["nvdimm0"], vm="web")
    assert "vdz" in caught.value.brief
    assert "vda" not in caught.value.brief
    assert "fdb, nvdimm0" in caught.value.evidence


def test_excluding_disks_that_exist_is_accepted() -> None:
    """Targets of the domain and of storage beside its disks may be excluded."""
    check_excluded(domain("multi").disks, ["vda", "hdb", "nvdimm0"], others=["nvdimm0"], vm="web")
