"""Domains inspected with every kind of disk."""

from contextlib import ExitStack
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from infra.errors import (
    DiskMissing,
    DomainBusy,
    UsageError,
)
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.inspect import inspect
from infra.hypervisor.references import chain_paths
from infra.model import ImageKind, Verdict
from tests.guests import virsh
from tests.integration.hypervisor.small import TAG, URI, Maker, disk, drive, loop, qcow2, raw, small_xml

pytestmark = pytest.mark.integration


def _others(folder: Path) -> str:
    return "".join(
        [
            disk("vdb", raw(folder / "data.raw"), form="raw"),
            disk("vdd", raw(folder / "reference.raw"), form="raw", flags="<readonly/>"),
            disk("vde", raw(folder / "shared.raw"), form="raw", flags="<shareable/>"),
            disk("vdf", qcow2(folder / "scratch.qcow2")),
            drive("hda", "cdrom", "ide", raw(folder / "medium.iso")),
            drive("hdb", "cdrom", "ide"),
            drive("fda", "floppy", "fdc", raw(folder / "floppy.img")),
        ]
    )


@pytest.mark.parametrize("start", [False, True], ids=["shut off", "paused"])
def test_every_kind_of_disk_is_classified(make: Maker, folder: Path, start: bool) -> None:  # noqa: FBT001
    """On one domain every disk gets its verdict, and every covered one its whole chain with sizes and kinds."""
    template = qcow2(folder / "template.qcow2")
    clone = qcow2(folder / "clone & co.qcow2", backing=template)
    with loop(folder / "device") as device, ExitStack() as until_detached:
        devices = disk("vda", escape(str(clone))) + disk("vdc", device, form="raw", kind="block")
        domain = make.define(f"read-{TAG}-kinds", devices + _others(folder), start=start)
        if start:
            until_detached.callback(domain.destroy)
        facts = inspect(domain, exclude_disks=["vdf"])
    verdicts = {disk.target: disk.verdict for disk in facts.disks}
    assert verdicts == {
        "vda": Verdict.COVERED,
        "vdb": Verdict.COVERED,
        "vdc": Verdict.COVERED,
        "vdd": Verdict.READ_ONLY,
        "vde": Verdict.UNCOVERED,
        "vdf": Verdict.EXCLUDED,
        "hda": Verdict.CDROM,
        "hdb": Verdict.EMPTY,
        "fda": Verdict.FLOPPY,
    }
    chains = {disk.target: [(image.path, image.format, image.kind) for image in disk.chain] for disk in facts.covered}
    assert chains == {
        "vda": [(str(clone), "qcow2", ImageKind.FILE), (str(template), "qcow2", ImageKind.FILE)],
        "vdb": [(str(folder / "data.raw"), "raw", ImageKind.FILE)],
        "vdc": [(device, "raw", ImageKind.BLOCK)],
    }
    assert {image.virtual_size for disk in facts.covered for image in disk.chain} == {4 << 20}
    assert [disk.target for disk in facts.uncovered] == ["vde"]


def test_a_volume_of_a_pool_is_covered_by_its_path(make: Maker, folder: Path) -> None:
    """A disk named by pool and volume is covered under the volume's path, and uncovered while the pool is off."""
    pool = f"read-{TAG}"
    image = qcow2(folder / "volume.qcow2")
    devices = (
        f"<disk type='volume'><driver type='qcow2'/><source pool='{pool}' volume='volume.qcow2'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    virsh(URI, "pool-create-as", pool, "dir", "--target", str(folder))
    try:
        domain = make.define(f"read-{TAG}-volume", devices, start=True)
        assert [each.source for each in inspect(domain, exclude_disks=()).covered] == [str(image)]
        assert str(image) in chain_paths(domain)
        domain.destroy()
        assert [each.source for each in inspect(domain, exclude_disks=()).covered] == [str(image)]
    finally:
        virsh(URI, "pool-destroy", pool)
    facts = inspect(domain, exclude_disks=())
    assert [each.reason for each in facts.uncovered] == [
        f"the volume {pool}/volume.qcow2 of a storage pool that is not active, or not on this host"
    ]


def test_a_vanished_disk_is_named(make: Maker, folder: Path) -> None:
    """An image that is gone raises DiskMissing with its path, and so does one below it."""
    template = qcow2(folder / "template.qcow2")
    image = qcow2(folder / "a.qcow2", backing=template)
    domain = make.define(f"read-{TAG}-vanished", disk("vda", image))
    template.unlink()
    with pytest.raises(DiskMissing, match="template"):
        inspect(domain, exclude_disks=())
    image.unlink()
    with pytest.raises(DiskMissing, match=r"a\.qcow2"):
        inspect(domain, exclude_disks=())
    with pytest.raises(DiskMissing) as caught:
        domain.start()
    assert str(image) in caught.value.evidence


def test_an_excluded_disk_must_exist(make: Maker, folder: Path) -> None:
    """A target in exclude_disks that the domain lacks is a mistake in the configuration, and the disks are named."""
    domain = make.define(f"read-{TAG}-misspelt", disk("vda", qcow2(folder / "a.qcow2")))
    with pytest.raises(UsageError) as caught:
        inspect(domain, exclude_disks=["vdc"])
    assert "vdc" in caught.value.brief
    assert caught.value.evidence == "its disks: vda"


def test_a_definition_that_names_another_image_is_refused(make: Maker, folder: Path, hypervisor: Hypervisor) -> None:
    """A running guest on another image than its definition names is refused, unless that image is ours."""
    used, named = qcow2(folder / "used.qcow2"), qcow2(folder / "named.qcow2")
    domain = make.define(f"read-{TAG}-drift", disk("vda", used), start=True)
    hypervisor.define(small_xml(f"read-{TAG}-drift", disk("vda", named), uuid=domain.uuid))
    with pytest.raises(DomainBusy) as caught:
        inspect(domain, exclude_disks=())
    assert f"vda: the running guest uses {used}, its definition names {named}" in caught.value.evidence
    assert inspect(domain, exclude_disks=(), ours=[str(used)]).disks[0].source == str(used)


def test_a_disk_of_the_next_start_makes_the_run_partial(make: Maker, folder: Path) -> None:
    """A disk that was attached to the definition alone is uncovered until the guest is restarted."""
    domain = make.define(f"read-{TAG}-next", disk("vda", qcow2(folder / "a.qcow2")), start=True)
    virsh(URI, "attach-disk", domain.uuid, str(raw(folder / "b.raw")), "vdb", "--config")
    facts = inspect(domain, exclude_disks=())
    assert [disk.target for disk in facts.disks] == ["vda"]
    assert [disk.target for disk in facts.uncovered] == ["vdb"]
    assert inspect(domain, exclude_disks=["vdb"]).uncovered == ()
    domain.destroy()
    assert [disk.target for disk in inspect(domain, exclude_disks=()).covered] == ["vda", "vdb"]
