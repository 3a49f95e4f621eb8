"""Restores on a real libvirt, from real archives of domains that have disks and nothing to boot."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.config.load import load
from infra.errors import (
    ArchiveIncomplete,
    ArchiveNotFound,
    NoSpace,
    TargetExists,
)
from infra.hypervisor import images
from infra.hypervisor.domain_xml import disk_sources
from tasks.restore import Mode
from tests.guests import Daemons, DiskSpec, image_dir
from tests.integration.bare import digest, image_holds, small_filesystem
from tests.integration.restoring import MIB, RestoreHost, restore_host, write

pytestmark = pytest.mark.integration


@pytest.fixture
def host(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with an empty repository."""
    assert daemons is not None
    with image_dir("restore") as root, restore_host(root) as place:
        yield place


def test_a_copy_stands_beside_its_original(host: RestoreHost) -> None:
    """A copy has a new name, UUID and image with the archived content; the original and its image are untouched."""
    domain = host.simple(fill=7)
    host.factory.make(domain)
    before = host.files()
    result = host.restore(domain.name, Mode.COPY)
    copy = host.find(f"{host.prefix}-copy")
    assert copy.uuid == result.uuid != domain.uuid
    assert disk_sources(copy.inactive_xml()) == result.disks
    assert image_holds(result.disks["vda"], "qcow2", 7)
    assert before.items() <= host.files().items()
    assert set(host.files()) - set(before) == {str(host.images / f"{host.prefix}-copy-vda.qcow2")}
    write(Path(result.disks["vda"]), "qcow2", 9)
    assert image_holds(host.images / "vm.qcow2", "qcow2", 7)


def test_latest_is_the_newest_finished_archive(host: RestoreHost) -> None:
    """Without --archive the newest finished archive comes back; an older one and none by its name do as well."""
    domain = host.simple(fill=1)
    first = host.factory.make(domain)
    write(host.images / "vm.qcow2", "qcow2", 2)
    host.factory.make(domain)
    unfinished = host.factory.make(domain, finished=False)
    assert image_holds(host.restore(domain.name, Mode.COPY, name=f"{host.prefix}-a").disks["vda"], "qcow2", 2)
    result = host.restore(domain.uuid[:8], Mode.COPY, archive=first, name=f"{host.prefix}-b")
    assert image_holds(result.disks["vda"], "qcow2", 1)
    with pytest.raises(ArchiveIncomplete):
        host.restore(domain.name, Mode.COPY, archive=unfinished)
    with pytest.raises(ArchiveNotFound):
        host.restore("nobody", Mode.COPY)


def test_a_whole_linked_clone_comes_back(host: RestoreHost) -> None:
    """A copy of a linked clone has its own template; the original template is neither used nor changed."""
    template = host.image("template.qcow2", fill=5)
    clone = host.image("clone.qcow2", backing=template)
    write(clone, "qcow2", 6, offset=MIB)
    before = digest(template)
    host.factory.make(host.define([DiskSpec("vda", clone)]))
    result = host.restore(f"{host.prefix}-vm", Mode.COPY)
    chain = [image.path for image in images.chain(result.disks["vda"], "qcow2")]
    assert chain == [f"{host.images}/{host.prefix}-copy-vda{part}.qcow2" for part in ("", "-base1")]
    assert image_holds(chain[0], "qcow2", 5)
    assert image_holds(chain[0], "qcow2", 6, offset=MIB)
    assert digest(template) == before


def test_flatten_makes_one_image_of_a_chain(host: RestoreHost) -> None:
    """A flattened copy has one image without backing file and the content of the whole chain."""
    template = host.image("template.qcow2", fill=5)
    clone = host.image("clone.qcow2", backing=template)
    write(clone, "qcow2", 6, offset=MIB)
    host.factory.make(host.define([DiskSpec("vda", clone)]))
    result = host.restore(f"{host.prefix}-vm", Mode.COPY, flatten=True)
    assert [image.path for image in images.chain(result.disks["vda"], "qcow2")] == [result.disks["vda"]]
    assert image_holds(result.disks["vda"], "qcow2", 5)
    assert image_holds(result.disks["vda"], "qcow2", 6, offset=MIB)
    assert sorted(path.name for path in host.images.iterdir()) == sorted(
        ["clone.qcow2", "template.qcow2", f"{host.prefix}-copy-vda.qcow2"]
    )


def test_a_taken_name_or_path_is_refused(host: RestoreHost) -> None:
    """A name that is defined and a file that is in the way are both refused, and nothing is changed."""
    domain = host.simple()
    host.factory.make(domain)
    with pytest.raises(TargetExists, match=domain.name):
        host.restore(domain.name, Mode.COPY, name=domain.name)
    blocker = host.images / f"{host.prefix}-copy-vda.qcow2"
    blocker.write_text("somebody's")
    with pytest.raises(TargetExists, match=blocker.name):
        host.restore(domain.name, Mode.COPY)
    assert blocker.read_text() == "somebody's"
    assert host.names() == {domain.name}


def test_no_space_is_found_before_anything_is_written(host: RestoreHost) -> None:
    """A target that is too small is refused with figures; nothing is in it afterwards."""
    domain = host.simple()
    host.factory.make(domain)
    write(host.images / "vm.qcow2", "qcow2", 8, offset=2 * MIB)
    host.factory.make(domain)
    with small_filesystem(host.root, 2 * MIB) as target:
        before = sorted(path.name for path in target.iterdir())
        with pytest.raises(NoSpace) as refusal:
            host.restore(domain.name, Mode.COPY, to=str(target))
        assert str(target) in refusal.value.evidence
        assert sorted(path.name for path in target.iterdir()) == before
    assert host.names() == {domain.name}


def test_a_restore_leaves_min_free(host: RestoreHost) -> None:
    """A restore that would leave less than min_free on the images' file system is refused; below that it is not."""
    domain = host.simple()
    host.factory.make(domain)
    with small_filesystem(host.root, 32 * MIB) as target:
        tight = json.loads(host.config_path.read_text())
        for min_free, enough in (("30MiB", False), ("8MiB", True)):
            tight["vms"]["defaults"] |= {"min_free": min_free, "min_free_start": "1GiB"}
            host.config_path.write_text(json.dumps(tight))
            host.config = load(host.config_path)
            if enough:
                host.restore(domain.name, Mode.COPY, to=str(target))
                continue
            with pytest.raises(NoSpace, match="room") as refusal:
                host.restore(domain.name, Mode.COPY, to=str(target))
            assert "min_free" in refusal.value.evidence
        host.clean()


def test_sparse_files_stay_sparse(host: RestoreHost) -> None:
    """A raw disk of 1 GiB that holds 1 MiB takes no more room after the restore than before, give or take 1 MiB."""
    path = host.images / "sparse.img"
    with path.open("wb") as file:
        file.truncate(1024 * MIB)
    write(path, "raw", 7, offset=512 * MIB)
    host.factory.make(host.define([DiskSpec("vda", path, format="raw")]))
    result = host.restore(f"{host.prefix}-vm", Mode.COPY)
    copy = Path(result.disks["vda"])
    assert copy.suffix == ".img"
    assert copy.stat().st_size == 1024 * MIB
    assert copy.stat().st_blocks * 512 <= path.stat().st_blocks * 512 + MIB
    assert digest(copy) == digest(path)


def test_files_only_defines_nothing(host: RestoreHost) -> None:
    """All files lie below the directory, linked among themselves, with a definition that libvirt takes."""
    template = host.image("template.qcow2", fill=5)
    domain = host.define([DiskSpec("vda", host.image("clone.qcow2", backing=template))])
    name, uuid = domain.name, domain.uuid
    host.factory.make(domain)
    target = host.root / "out"
    result = host.restore(name, Mode.FILES, to=str(target))
    assert host.names() == {name}
    assert (target / "vmborg/domain.xml").is_file()
    chain = [image.path for image in images.chain(result.disks["vda"], "qcow2")]
    assert chain == [f"{target}{host.images}/clone.qcow2", f"{target}{template}"]
    assert any("replaces a VM" in warning for warning in result.warnings)
    secrets = [path for path in (target / "vmborg").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*secrets, Path(result.definition)]} == {0o600}
    domain.undefine()
    again = host.hypervisor.define(Path(result.definition).read_text())
    assert (again.name, again.uuid) == (name, uuid)
    assert disk_sources(again.inactive_xml()) == {"vda": chain[0]}
    again.start(paused=True)  # qemu, which is not root, reaches its images
    again.destroy()
    with pytest.raises(TargetExists):
        host.restore(name, Mode.FILES, to=str(target))


def test_a_copy_leaves_out_what_is_not_in_the_archive(host: RestoreHost) -> None:
    """An excluded disk is not in the copy, and a warning names it; in place it stays as it is."""
    domain = host.define([DiskSpec("vda", host.image("a.qcow2")), DiskSpec("vdb", host.image("b.qcow2", fill=2))])
    host.factory.make(domain, exclude=["vdb"])
    result = host.restore(domain.name, Mode.COPY)
    assert set(disk_sources(host.find(result.name).inactive_xml())) == {"vda"}
    assert any("vdb" in warning and "b.qcow2" in warning for warning in result.warnings)
    inode = (host.images / "b.qcow2").stat().st_ino
    host.restore(domain.name, Mode.IN_PLACE)
    assert (host.images / "b.qcow2").stat().st_ino == inode
    assert set(disk_sources(domain.inactive_xml())) == {"vda", "vdb"}


def test_two_disks_may_share_a_template(host: RestoreHost) -> None:
    """Two clones of one template in one VM come back with one template."""
    template = host.image("template.qcow2", fill=5)
    disks = [DiskSpec(target, host.image(f"{target}.qcow2", backing=template)) for target in ("vda", "vdb")]
    host.factory.make(host.define(disks))
    result = host.restore(f"{host.prefix}-vm", Mode.COPY)
    below = {images.chain(path, "qcow2")[1].path for path in result.disks.values()}
    assert len(below) == 1
    assert all(image_holds(path, "qcow2", 5) for path in result.disks.values())
