"""Where each archived file goes, and what a plan must not do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from infra.errors import ManifestError, RestoreError, TargetExists, UnsafeArchive, UsageError, VmborgError
from infra.manifest import Manifest, ManifestBootFile, ManifestDisk, ManifestImage
from infra.model import Consistency, ImageKind, Verdict
from tasks.restore.checks import check_copy_name, require_device_consent
from tasks.restore.model import Host, Mode, Plan, Rule, Wish
from tasks.restore.plan import make_plan, rewrite_plan

UUID = "11111111-2222-3333-4444-555555555555"
NEW = "99999999-2222-3333-4444-555555555555"
NOTHING = Host(exists=lambda _: False, resolve=str)


def _image(source: str, kind: ImageKind = ImageKind.FILE, image_format: str = "qcow2") -> ManifestImage:
    return ManifestImage(
        archive_path=source.lstrip("/"),
        source=source,
        format=image_format,
        kind=kind,
        size=100,
        virtual_size=100,
        allocated=60,
    )


def _disk(target: str, *chain: ManifestImage) -> ManifestDisk:
    top = chain[0]
    return ManifestDisk(
        target=target, verdict=Verdict.COVERED, source=top.source, archive_path=top.archive_path, chain=chain
    )


TEMPLATE = _image("/srv/template.qcow2")
VDA = _disk("vda", _image("/srv/a.qcow2"), TEMPLATE)
VDB = _disk("vdb", _image("/data/b.raw", image_format="raw"))
DEVICE = _disk("vdc", _image("/dev/vg/c", ImageKind.BLOCK, "raw"))
LEFT_OUT = ManifestDisk(target="vdd", verdict=Verdict.EXCLUDED, source="/srv/d.img")
NVRAM = "/var/lib/libvirt/qemu/nvram/web_VARS.fd"


def _boot(role: str, source: str) -> ManifestBootFile:
    return ManifestBootFile(role=role, archive_path=f"vmborg/{role}", source=source, size=1, sha256="0" * 64)


def _manifest(*disks: ManifestDisk, boot_files: tuple[ManifestBootFile, ...] = ()) -> Manifest:
    return Manifest(
        vm="web",
        uuid=UUID,
        hypervisor="h",
        host="h",
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        vmborg="0",
        consistency=Consistency.AGENT,
        consistency_reason="",
        frozen_ms=0,
        filesystems_frozen=0,
        domain_xml="vmborg/domain.xml",
        disks=disks,
        boot_files=boot_files,
    )


def _xml(manifest: Manifest) -> str:
    disks = "".join(
        f"<disk type='{'block' if disk.source.startswith('/dev/') else 'file'}' device='disk'>"
        f"<source {'dev' if disk.source.startswith('/dev/') else 'file'}='{disk.source}'/>"
        f"<target dev='{disk.target}'/></disk>"
        for disk in manifest.disks
    )
    return f"<domain><name>web</name><uuid>{UUID}</uuid><devices>{disks}</devices></domain>"


def _plan(manifest: Manifest, wish: Wish, host: Host = NOTHING) -> Plan:
    return make_plan(manifest, _xml(manifest), wish, host)


def _targets(plan: Plan) -> dict[str, str]:
    return {file.archive_path: file.target for file in plan.all_files}


COPY = Wish(Mode.COPY, name="new", uuid=NEW)
IN_PLACE = Wish(Mode.IN_PLACE)


def test_a_copys_images_lie_beside_the_originals_under_its_own_name() -> None:
    """Each image of a copy is named after it and its disk, in the directory of the original; devices become files."""
    plan = _plan(_manifest(VDA, VDB, DEVICE, LEFT_OUT), COPY)
    assert _targets(plan) == {
        "srv/a.qcow2": "/srv/new-vda.qcow2",
        "srv/template.qcow2": "/srv/new-vda-base1.qcow2",
        "data/b.raw": "/data/new-vdb.img",
        "dev/vg/c": "/srv/new-vdc.img",
    }
    assert (plan.name, plan.uuid, plan.devices, plan.drop) == ("new", NEW, (), {"vdd"})
    assert {file.rule for file in plan.files} == {Rule.NEW}


def test_to_gathers_everything_in_one_directory() -> None:
    """With a directory named, all images and the kernel lie in it; the NVRAM stays where libvirt keeps it."""
    manifest = _manifest(VDA, VDB, boot_files=(_boot("nvram", NVRAM), _boot("kernel", "/boot/vmlinuz")))
    targets = _targets(_plan(manifest, replace(COPY, to="/new")))
    assert targets == {
        "srv/a.qcow2": "/new/new-vda.qcow2",
        "srv/template.qcow2": "/new/new-vda-base1.qcow2",
        "data/b.raw": "/new/new-vdb.img",
        "vmborg/nvram": "/var/lib/libvirt/qemu/nvram/new_VARS.fd",
        "vmborg/kernel": "/new/new-kernel",
    }


def test_a_template_that_two_disks_share_is_restored_once() -> None:
    """Two clones of one template have one plan for it."""
    plan = _plan(_manifest(VDA, _disk("vdb", _image("/srv/b.qcow2"), TEMPLATE)), COPY)
    assert len(plan.files) == 3


def test_in_place_only_the_active_images_make_way() -> None:
    """In place the guest's own image is replaced; template and kernel are kept, with a place beside them."""
    manifest = _manifest(VDA, boot_files=(_boot("nvram", NVRAM), _boot("kernel", "/boot/vmlinuz")))
    plan = _plan(manifest, IN_PLACE, replace(NOTHING, own_paths=frozenset({"/srv/a.qcow2", NVRAM})))
    rules = {file.archive_path: (file.rule, file.beside) for file in plan.all_files}
    assert rules == {
        "srv/a.qcow2": (Rule.REPLACE, ""),
        "srv/template.qcow2": (Rule.KEEP, "/srv/template.vmborg-20260102T030405Z.qcow2"),
        "vmborg/nvram": (Rule.REPLACE, ""),
        "vmborg/kernel": (Rule.KEEP, "/srv/web-kernel"),  # nothing is ever written to /boot
    }
    assert "/boot/vmlinuz" not in plan.written


def test_a_domain_renamed_since_keeps_its_new_name() -> None:
    """In place, the domain that has the archived UUID keeps the name it has now."""
    assert _plan(_manifest(VDB), IN_PLACE, replace(NOTHING, current_name="www")).name == "www"


def test_block_devices_are_written_in_place_with_consent_only() -> None:
    """A device is written over only when that was asked for."""
    host = replace(NOTHING, own_paths=frozenset({"/dev/vg/c"}))
    plan = _plan(_manifest(DEVICE), IN_PLACE, host)
    assert [device.device for device in plan.devices] == ["/dev/vg/c"]
    with pytest.raises(RestoreError, match="block devices"):
        require_device_consent(plan, IN_PLACE)
    require_device_consent(plan, replace(IN_PLACE, overwrite_devices=True))


SYSTEM = _disk("vda", _image("/etc/cron.d/evil"))


@pytest.mark.parametrize(
    ("manifest", "wish", "host", "kind"),
    [
        (_manifest(SYSTEM), IN_PLACE, NOTHING, UnsafeArchive),
        (_manifest(SYSTEM), COPY, NOTHING, UnsafeArchive),
        (_manifest(DEVICE), IN_PLACE, NOTHING, UnsafeArchive),
        (_manifest(VDB, boot_files=(_boot("nvram", "/root/.ssh/keys"),)), IN_PLACE, NOTHING, UnsafeArchive),
        (_manifest(VDB), COPY, replace(NOTHING, exists="/data/new-vdb.img".__eq__), TargetExists),
        (_manifest(VDB), IN_PLACE, replace(NOTHING, exists="/data/b.raw".__eq__), TargetExists),
        (_manifest(VDB), IN_PLACE, replace(NOTHING, other_users={"/data/b.raw": "db"}), TargetExists),
        (_manifest(VDB, boot_files=(_boot("nvram", "/data/b.raw"),)), IN_PLACE, NOTHING, ManifestError),
    ],
)
def test_dangerous_plans_are_refused(manifest: Manifest, wish: Wish, host: Host, kind: type[VmborgError]) -> None:
    """System directories, devices nobody vouches for, files in the way, in use by others, and two files for one."""
    with pytest.raises(kind):
        _plan(manifest, wish, host)


def test_a_place_that_is_allowed_is_taken() -> None:
    """`--allow path` and a directory named by the administrator overrule the distrust of a place."""
    assert _plan(_manifest(SYSTEM), replace(IN_PLACE, allow=frozenset({"path"}))).files
    assert _plan(_manifest(SYSTEM), replace(COPY, to="/root/vms")).files


@pytest.mark.parametrize("change", [lambda xml: xml.replace("vda", "vdq"), lambda xml: xml.replace("/srv/a", "/srv/z")])
def test_manifest_and_definition_must_agree(change: Callable[[str], str]) -> None:
    """A disk that the definition does not have, or has elsewhere, makes the archive unsafe."""
    manifest = _manifest(VDA)
    with pytest.raises(UnsafeArchive, match="disagree"):
        make_plan(manifest, change(_xml(manifest)), COPY, NOTHING)


def test_the_definition_names_where_the_files_ended() -> None:
    """Disk paths of a copy are the final ones; in place they are those of the archive."""
    manifest = _manifest(VDA, DEVICE)
    plan = _plan(manifest, COPY)
    paths = {file.archive_path: f"/final/{file.archive_path}" for file in plan.files}
    disks = rewrite_plan(plan, paths=paths, missing_media=frozenset()).disks
    assert (disks["vda"].path, disks["vda"].kind) == ("/final/srv/a.qcow2", ImageKind.FILE)
    assert (disks["vdc"].path, disks["vdc"].kind) == ("/final/dev/vg/c", ImageKind.FILE)
    there = replace(NOTHING, own_paths=frozenset({"/dev/vg/c"}))
    disks = rewrite_plan(_plan(manifest, IN_PLACE, there), paths=paths, missing_media=frozenset()).disks
    assert (disks["vda"].path, disks["vdc"].path) == ("/srv/a.qcow2", "/dev/vg/c")
    assert disks["vdc"].kind is ImageKind.BLOCK


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\nb", "x" * 201, ".", "..", ".web"])
def test_impossible_names_are_refused(name: str) -> None:
    """A copy's name must be one that libvirt and file names can hold."""
    with pytest.raises(UsageError, match="cannot be the name"):
        check_copy_name(name)


@pytest.mark.parametrize("name", ["-web", "web 2", "ü", "100%", "a@b", "a."])
def test_odd_names_are_allowed(name: str) -> None:
    """Leading dashes, blanks and any script are names."""
    check_copy_name(name)


def test_a_linked_disk_on_a_device_is_not_flattened_in_place() -> None:
    """Flattening makes files: in place, a device that holds a linked image is refused by name, whatever the consent."""
    manifest = _manifest(_disk("vdc", _image("/dev/vg/c", ImageKind.BLOCK), TEMPLATE))
    wish = replace(IN_PLACE, flatten=True, overwrite_devices=True)
    host = replace(NOTHING, own_paths=frozenset({"/dev/vg/c"}))
    with pytest.raises(RestoreError, match="one image") as refusal:
        require_device_consent(_plan(manifest, wish, host), wish)
    assert "/dev/vg/c" in refusal.value.evidence
    consent = replace(wish, flatten=False)
    require_device_consent(_plan(manifest, consent, host), consent)


HERE = replace(NOTHING, current_xml=_xml(_manifest(VDA, LEFT_OUT)), own_paths=frozenset({"/srv/a.qcow2"}))


@pytest.mark.parametrize(
    ("wish", "host", "missing", "left_out"),
    [
        (COPY, NOTHING, set(), {"vdd"}),
        (Wish(Mode.FILES, to="/out"), NOTHING, set(), {"vdd"}),
        (IN_PLACE, NOTHING, set(), set()),
        (IN_PLACE, NOTHING, {"vdd"}, {"vdd"}),
        (IN_PLACE, HERE, {"vdd"}, set()),
        (replace(IN_PLACE, leave_out=frozenset({"vdd"})), HERE, set(), {"vdd"}),
        (replace(IN_PLACE, leave_out=frozenset({"vdd"})), NOTHING, set(), {"vdd"}),
    ],
)
def test_a_disk_without_content_is_left_out(wish: Wish, host: Host, missing: set[str], left_out: set[str]) -> None:
    """Of a copy always; in place if asked for, or if it went with the whole VM: else the VM would not start."""
    plan = _plan(_manifest(VDA, LEFT_OUT), wish, host)
    paths = {file.archive_path: file.target for file in plan.files}
    assert rewrite_plan(plan, paths=paths, missing_media=frozenset(missing)).leave_out == left_out


@pytest.mark.parametrize("target", ["vda", "vdz"])
def test_only_a_disk_without_content_can_be_left_out(target: str) -> None:
    """A disk that is in the archive and one that the definition does not have are refused, with those that can be."""
    with pytest.raises(UsageError, match=target) as refusal:
        _plan(_manifest(VDA, LEFT_OUT), replace(IN_PLACE, leave_out=frozenset({target})))
    assert "vdd" in refusal.value.evidence


def test_a_file_that_stays_beside_the_archived_one_is_not_vouched_for() -> None:
    """When a template here differs, the archived one's place counts as restored and the other file does not."""
    plan = _plan(_manifest(VDA), IN_PLACE)
    final = {"srv/a.qcow2": "/srv/a.qcow2", "srv/template.qcow2": "/srv/template.vmborg-x.qcow2"}
    assert plan.found_at(final) == {"/srv/a.qcow2", "/srv/template.vmborg-x.qcow2"}
