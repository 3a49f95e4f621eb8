"""Archives that somebody spoiled on purpose: each is refused by name, and nothing is changed."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import ArchiveIncomplete, ImageError, ManifestError, UnsafeArchive, UsageError, VmborgError
from infra.hypervisor import images
from infra.manifest import Manifest
from infra.process import run
from tasks.restore import Mode
from tests.guests import Daemons, DiskSpec, image_dir
from tests.integration.restoring import RestoreHost, restore_host

pytestmark = pytest.mark.integration

EMULATOR = "/usr/bin/qemu-system-x86_64"
HOSTDEV = """<hostdev mode='subsystem' type='pci' managed='yes'><source>
  <address domain='0' bus='0' slot='1' function='0'/></source></hostdev></devices>"""
SHADOW = """<disk type='file' device='disk'><source file='/etc/shadow'/>
  <target dev='vdx' bus='virtio'/></disk></devices>"""
DAEMON = "/run/libvirt/libvirt-sock"
SOCKET = f"<serial type='unix'><source mode='connect' path='{DAEMON}'/></serial></devices>"
ENTITY = '<!DOCTYPE domain [<!ENTITY s SYSTEM "file:///etc/shadow">]>'

Edit = Callable[[str], str]


@pytest.fixture(scope="module")
def place(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with one domain, whose archives the tests spoil."""
    assert daemons is not None
    with image_dir("hostile") as root, restore_host(root) as host:
        host.simple()
        yield host


def _refused(host: RestoreHost, vm: str, kind: type[VmborgError], mode: Mode = Mode.COPY) -> VmborgError:
    """Restore `vm`, which must fail and change neither files nor domains."""
    before = host.files(), host.names(), sorted(path.name for path in (host.root / "state").iterdir())
    with pytest.raises(kind) as refusal:
        host.restore(vm, mode)
    after = host.files(), host.names(), sorted(path.name for path in (host.root / "state").iterdir())
    assert [name for name in after[2] if name.startswith(".vmborg")] == []
    assert after[:2] == before[:2]
    return refusal.value


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda xml: ENTITY + xml, "entit"),
        (lambda xml: xml.replace(EMULATOR, "/tmp/evil"), "/tmp/evil"),
        (lambda xml: xml.replace("</devices>", HOSTDEV), "hostdev"),
        (lambda xml: xml.replace("</devices>", SHADOW), "/etc/shadow"),
        (lambda xml: xml.replace("/images/vm.qcow2", "/images/other.qcow2"), "other.qcow2"),
        (lambda xml: xml.replace("</os>", "<initrd>tmp/secret</initrd></os>"), "tmp/secret"),
    ],
    ids=["entity", "emulator", "hostdev", "disk", "disagreement", "relative"],
)
@pytest.mark.parametrize("mode", [Mode.COPY, Mode.IN_PLACE])
def test_a_hostile_definition_is_refused(place: RestoreHost, mode: Mode, edit: Edit, named: str) -> None:
    """External entities, a strange emulator, a host device, a foreign disk: named in the refusal, both ways."""
    vm = f"{place.prefix}-vm"
    place.factory.make(place.find(vm), edit_xml=edit)
    error = _refused(place, vm, UnsafeArchive, mode)
    assert named in f"{error.brief}\n{error.evidence}"


def test_the_socket_of_a_daemon_is_not_handed_over(place: RestoreHost) -> None:
    """In place it is refused by name; a copy does without it, and says so."""
    vm = f"{place.prefix}-vm"
    place.factory.make(place.find(vm), edit_xml=lambda xml: xml.replace("</devices>", SOCKET))
    assert DAEMON in _refused(place, vm, UnsafeArchive, Mode.IN_PLACE).evidence
    done = place.restore(vm, Mode.COPY)
    assert any(DAEMON in warning for warning in done.warnings)
    copy = place.hypervisor.by_uuid(done.uuid)
    assert DAEMON not in copy.inactive_xml()
    copy.undefine()
    Path(done.disks["vda"]).unlink()


def test_a_danger_goes_through_when_it_is_allowed(place: RestoreHost) -> None:
    """A definition with qemu arguments is refused, and restored with them when they are allowed by name."""
    vm = f"{place.prefix}-vm"
    arguments = """<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <qemu:arg value='-snapshot'/></qemu:commandline></domain>"""
    place.factory.make(place.find(vm), edit_xml=lambda xml: xml.replace("</domain>", arguments))
    assert "--allow commandline" in _refused(place, vm, UnsafeArchive).remedy
    result = place.restore(vm, Mode.COPY, allow=frozenset({"commandline"}))
    assert "-snapshot" in place.find(result.name).inactive_xml()
    place.find(result.name).undefine()
    Path(result.disks["vda"]).unlink()


def _with_path(path: str) -> Callable[[Manifest], str]:
    return lambda manifest: manifest.model_dump_json().replace(manifest.disks[0].chain[0].archive_path, path)


@pytest.mark.parametrize("path", ["/etc/cron.d/x", "../../etc/cron.d/x", "var/../../etc/x", "a\\u0000b"])
def test_a_hostile_path_in_the_manifest_is_refused(place: RestoreHost, path: str) -> None:
    """Absolute paths, `..` and control characters in the manifest are refused before anything is extracted."""
    vm = f"{place.prefix}-vm"
    domain = place.find(vm)
    texts: list[str] = []

    def remember(manifest: Manifest) -> Manifest:
        texts.append(_with_path(path)(manifest))
        return manifest

    place.factory.make(
        domain,
        edit_manifest=remember,
        edit_directory=lambda directory: (directory / "manifest.json").write_text(texts[0]),
    )
    _refused(place, vm, ManifestError)


def test_a_link_in_the_archive_is_refused(place: RestoreHost) -> None:
    """A symbolic link among the archived files, through which later ones could escape, is refused."""
    vm = f"{place.prefix}-vm"
    place.factory.make(place.find(vm), edit_directory=lambda directory: (directory / "tpm").symlink_to("/etc"))
    error = _refused(place, vm, UnsafeArchive)
    assert "vmborg/tpm" in error.evidence


def test_an_archive_that_lacks_an_image_is_refused(place: RestoreHost) -> None:
    """A manifest that promises another size or an image that is not there is not believed."""
    vm = f"{place.prefix}-vm"

    def promise_more(manifest: Manifest) -> Manifest:
        (disk,) = manifest.disks
        image = disk.chain[0].model_copy(update={"size": disk.chain[0].size + 1})
        return manifest.model_copy(update={"disks": (disk.model_copy(update={"chain": (image,)}),)})

    place.factory.make(place.find(vm), edit_manifest=promise_more)
    assert "expected" in _refused(place, vm, ArchiveIncomplete).evidence


def test_an_image_with_a_backing_file_of_its_own_is_refused(place: RestoreHost) -> None:
    """An image whose header names a file of the host that the manifest does not is refused, not opened."""
    victim = place.image("victim.qcow2")
    clone = place.image("hostile.qcow2", backing=victim)
    domain = place.define([DiskSpec("vda", clone)], name="hostile")

    def hide_chain(manifest: Manifest) -> Manifest:
        (disk,) = manifest.disks
        return manifest.model_copy(update={"disks": (disk.model_copy(update={"chain": disk.chain[:1]}),)})

    place.factory.make(domain, edit_manifest=hide_chain)
    assert str(victim) in _refused(place, domain.name, UnsafeArchive).evidence


def test_an_image_with_an_external_data_file_is_refused(place: RestoreHost) -> None:
    """An image that keeps its content in another file of the host is refused."""
    domain = place.simple(name="data")
    path = place.images / "data.qcow2"

    def replace_image(_: Path) -> None:
        path.unlink()
        options = f"data_file={place.images}/data.raw"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "16M"], timeout=60)

    def promise(manifest: Manifest) -> Manifest:
        replace_image(path)
        (disk,) = manifest.disks
        image = disk.chain[0].model_copy(update={"size": images.size_of(str(path))})
        return manifest.model_copy(update={"disks": (disk.model_copy(update={"chain": (image,)}),)})

    place.factory.make(domain, edit_manifest=promise)
    assert "another file" in _refused(place, domain.name, UnsafeArchive).evidence


def test_a_damaged_image_is_refused(place: RestoreHost) -> None:
    """An image whose tables are broken is found by qemu-img check before anything is defined."""
    domain = place.simple(name="broken")
    path = place.images / "broken.qcow2"
    with path.open("r+b") as file:
        file.seek(3 * 65536)  # the first L2 table, after header, refcount table and block
        while chunk := file.read(65536):
            if chunk.startswith(b"\x80"):
                file.seek(-len(chunk), os.SEEK_CUR)
                file.write(b"\x80\x00\x00\x00\xff\xff\xff\x00")
                break
    place.factory.make(domain)
    _refused(place, domain.name, ImageError)


def test_files_only_writes_no_definition_that_is_refused(place: RestoreHost) -> None:
    """With the files of a hostile archive comes no definition, and a warning says why; allowed by name, one does."""
    vm = f"{place.prefix}-vm"
    place.factory.make(place.find(vm), edit_xml=lambda xml: xml.replace(EMULATOR, "/tmp/evil"))
    out = place.root / "hostile-out"
    result = place.restore(vm, Mode.FILES, to=str(out))
    assert result.definition == ""
    assert not (out / "define.xml").exists()
    assert Path(result.disks["vda"]).is_file()
    assert any("/tmp/evil" in warning for warning in result.warnings)
    allowed = place.restore(vm, Mode.FILES, to=str(out) + "-2", allow=frozenset({"emulator"}))
    assert "/tmp/evil" in Path(allowed.definition).read_text()
    for path in (out, out.with_name("hostile-out-2")):
        shutil.rmtree(path)


def test_metadata_that_nobody_expects_is_not_extracted(place: RestoreHost) -> None:
    """A file below vmborg/ that the manifest does not name could fill the state directory: it is refused by name."""
    vm = f"{place.prefix}-vm"
    place.factory.make(place.find(vm), edit_directory=lambda directory: (directory / "bomb").write_bytes(b"x" * 10**6))
    assert "vmborg/bomb: 1000000 bytes" in _refused(place, vm, UnsafeArchive).evidence


def test_a_manifest_of_another_vm_is_refused(place: RestoreHost) -> None:
    """An archive that goes by this VM's name and is another's would be restored over that one: it is refused."""
    vm = f"{place.prefix}-vm"
    other = "99999999-0000-4000-8000-000000000000"
    place.factory.make(place.find(vm), edit_manifest=lambda manifest: manifest.model_copy(update={"uuid": other}))
    assert other in _refused(place, vm, UnsafeArchive, Mode.IN_PLACE).evidence


def test_another_vms_archive_is_refused(place: RestoreHost) -> None:
    """An archive named outright must be one of the VM named with it."""
    other = place.simple(name="other")
    archive = place.factory.make(other)
    with pytest.raises(UsageError, match="not one of the VM"):
        place.restore(f"{place.prefix}-vm", Mode.COPY, archive=archive)
