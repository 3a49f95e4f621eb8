"""What `vmborg boot` must refuse, or cannot run here: typed, with a remedy, and nothing is left."""

from pathlib import Path

import pytest

from infra.errors import ArchiveIncomplete, TargetExists, UnsafeArchive, VmborgError
from infra.manifest import Manifest, disk_folder, segment_name
from tasks.boot import Choice, Wanted, boot
from tests.e2e.booting import BootHost, archive, assert_nothing_left, booting_host, quiet
from tests.guests import DiskSpec

__all__ = ["booting_host"]
pytestmark = pytest.mark.e2e

FOREIGN = {
    "architecture": ("arch='x86_64' machine='q35'", "arch='sparc' machine='q35'", "HostUnfit"),
    "machine": ("machine='q35'", "machine='pc-q35-99.9'", "HostUnfit"),
    "hostile": (
        "<controller type='usb'",
        "<filesystem type='mount'><source dir='/'/><target dir='x'/></filesystem><controller type='usb'",
        "UnsafeArchive",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_cannot_or_must_not_run_here_is_refused(host: BootHost, kind: str) -> None:
    """Another architecture or machine type, a definition that reaches for the host: typed, nothing is left."""
    old, new, error = FOREIGN[kind]
    name = f"foreign-{kind}"
    image = host.host.image(f"{name}.qcow2")
    domain = archive(host, name, [DiskSpec("vda", image)], edit_xml=lambda xml: edited(xml, old, new))
    with pytest.raises(VmborgError) as told:
        boot(host.config, Wanted(domain.name), say=quiet)
    assert type(told.value).__name__ == error
    assert told.value.evidence
    assert told.value.remedy
    assert_nothing_left(host)


def edited(xml: str, old: str, new: str) -> str:
    """libvirt has made q35 a versioned machine, and moved attributes."""
    text = xml.replace("machine='pc-q35-7.2'", "machine='q35'")
    assert old in text
    return text.replace(old, new, 1)


def test_an_archive_that_is_not_whole_is_refused(host: BootHost) -> None:
    """A segment that is missing: ArchiveIncomplete before anything runs."""
    image = host.host.image("short.qcow2")

    def drop_one(directory: Path) -> None:
        Path(directory.parent, disk_folder("vda"), segment_name(1)).unlink()

    domain = archive(host, "short", [DiskSpec("vda", image)], segments=True, edit_directory=drop_one)
    with pytest.raises(ArchiveIncomplete):
        boot(host.config, Wanted(domain.name), say=quiet)
    assert_nothing_left(host)


def test_an_image_that_wants_other_files_is_refused(host: BootHost) -> None:
    """A header that names a backing file which the manifest does not: UnsafeArchive, nothing is left."""
    clone = host.host.image("wants.qcow2", backing=host.host.images / "elsewhere.qcow2")

    def hide_chain(manifest: Manifest) -> Manifest:
        (disk,) = manifest.disks
        return manifest.model_copy(update={"disks": (disk.model_copy(update={"chain": disk.chain[:1]}),)})

    domain = archive(host, "wants", [DiskSpec("vda", clone)], edit_manifest=hide_chain)
    with pytest.raises(UnsafeArchive, match="a file that the manifest does not name"):
        boot(host.config, Wanted(domain.name), say=quiet)
    assert_nothing_left(host)


def test_a_name_that_is_taken_is_refused(host: BootHost) -> None:
    """By any VM: nothing is touched."""
    taken = host.name("clone")
    with pytest.raises(TargetExists) as refused:
        boot(host.config, Wanted(host.name("parts"), choice=Choice(taken)), say=quiet)
    assert "boot --discard" in refused.value.remedy
    assert "in-place" not in refused.value.remedy
    assert_nothing_left(host)
