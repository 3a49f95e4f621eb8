"""Backups that read only what changed: every archive is the whole disk all the same, whatever happened in between.

The domains have no operating system, so a disk holds what the test wrote and nothing else. Each archive is compared,
byte for byte, with what qemu-img reads of the image.
"""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from infra.errors import CommandFailed
from infra.hypervisor.qemu_process import life_of
from infra.process import run, spawn
from tasks.memory import state_path
from tests.e2e.sources import MIB, Sources, disk, guest_io
from tests.e2e.test_backup_restore import borg_create
from tests.guests import Guest, virsh, wait_for
from tests.integration.segments.images import content_of
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.e2e

LARGE = 64 * MIB
Disks = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def changed(host: Sources) -> Sources:
    """The installation, with `read: changed`."""
    host.site.configure(read="changed", quiesce="never")
    return host


def extract(host: Sources, archive: str, path: str) -> bytes:
    """What plain borg gives back."""
    where = host.folder / "extracted"
    with where.open("wb") as file:
        host.site.repository.extract_to(archive, path, file)
    try:
        return where.read_bytes()
    finally:
        where.unlink()


def back_up(host: Sources, guest: Guest, images: dict[str, Path]) -> tuple[str, Disks]:
    """Back it up and compare every disk that is in segments; the archive, and the result's disks by target."""
    result = host.backup(guest.name)[guest.name]["result"]
    for target, path in images.items():
        assert extract(host, result["archive"], f"disks/{target}") == content_of(path), target
    return result["archive"], {each["target"]: each for each in result["disks"]}


def one_disk(host: Sources, name: str) -> tuple[Guest, dict[str, Path]]:
    """A running domain with one disk of 64 MiB, backed up once."""
    image = host.image(f"{name}.qcow2", fill=3, size=LARGE)
    guest = host.define(f"changed-{name}", disk("vda", image)).start()
    back_up(host, guest, {"vda": image})
    return guest, {"vda": image}


def checkpoints(guest: Guest) -> list[str]:
    """Names of its checkpoints."""
    return virsh(guest.uri, "checkpoint-list", guest.uuid, "--name").split()


def test_the_second_backup_reads_what_changed(changed: Sources) -> None:
    """The first reads everything, the next only segments written to; one checkpoint of ours stays, others' too."""
    image = changed.image("second.qcow2", fill=3, size=LARGE)
    guest = changed.define("changed-second", disk("vda", image, driver="discard='unmap'")).start()
    foreign = "<domaincheckpoint><name>admins</name></domaincheckpoint>"
    run(["virsh", "-c", guest.uri, "checkpoint-create", guest.uuid, "/dev/stdin"], timeout=60, input_text=foreign)
    _, first = back_up(changed, guest, {"vda": image})
    guest_io(guest, "vda", f"write -P 7 {33 * MIB} 65536", "discard 0 65536")
    _, second = back_up(changed, guest, {"vda": image})
    _, third = back_up(changed, guest, {"vda": image})
    told = [(each["vda"]["mode"], each["vda"]["read"]) for each in (first, second, third)]
    assert told == [("full", LARGE), ("incremental", 8 * MIB), ("incremental", 0)]
    assert sorted(name.startswith("vmborg-") for name in checkpoints(guest)) == [False, True]


def test_disks_of_every_kind_in_one_vm(changed: Sources, tmp_path: Path) -> None:
    """qcow2 in segments, raw and excepted disks whole, with reasons; restored, checked and listed like any other."""
    images = {target: changed.image(f"{target}.qcow2", fill=number) for number, target in ((5, "vda"), (6, "vdb"))}
    raw, kept = changed.image("c.raw", "raw", fill=8), changed.image("d.qcow2", fill=9)
    changed.site.configure(read="changed", quiesce="never", whole_disks=["vdd"])
    disks = [*(disk(target, path) for target, path in images.items()), disk("vdc", raw, "raw"), disk("vdd", kept)]
    guest = changed.define("changed-kinds", *disks).start()
    archive, _ = back_up(changed, guest, images)
    guest_io(guest, "vdb", "write -P 7 5M 64k")
    archive, told = back_up(changed, guest, images)
    assert {target: each["mode"] for target, each in told.items()} == {
        "vda": "incremental",
        "vdb": "incremental",
        "vdc": "whole",
        "vdd": "whole",
    }
    assert (told["vda"]["read"], told["vdb"]["read"]) == (0, 4 * MIB)
    assert "raw" in told["vdc"]["reason"]
    assert "whole_disks" in told["vdd"]["reason"]
    assert extract(changed, archive, str(raw).lstrip("/")) == raw.read_bytes()
    restored, copy = changed.restore_as(guest.name, "changed-kinds-copy")
    for target, path in {**images, "vdd": kept}.items():
        assert content_of(Path(restored["disks"][target])) == content_of(path)
    copy.start()
    copy.destroy()
    files = tmp_path / "files"
    changed.site.ok("restore", guest.name, "--files-only", "--to", files)
    assert content_of(files / "disks/vdb.qcow2") == content_of(images["vdb"])
    changed.site.ok("check")


def test_a_qemu_that_was_killed_leads_to_a_full_read(changed: Sources) -> None:
    """kill -9 while the guest writes to its base leaves the bitmap in use: everything is read, and then less again."""
    guest, images = one_disk(changed, "killed")
    guest_io(guest, "vda", "write -P 8 40M 1M", "flush")
    os.kill(int(life_of(guest.uuid).split()[1]), signal.SIGKILL)
    guest.wait_state("shut off")
    guest.start()
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], "in use" in told["vda"]["reason"]) == ("full", True)
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"]) == ("incremental", 0)


def test_a_disk_of_another_size_is_read_in_full(changed: Sources) -> None:
    """After a resize of the running guest's disk everything is read, and what was grown is in the archive."""
    guest, images = one_disk(changed, "resized")
    virsh(guest.uri, "blockresize", guest.uuid, "vda", "72M")
    guest_io(guest, "vda", "write -P 8 70M 64k")
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], "size" in told["vda"]["reason"]) == ("full", True)


def test_a_run_that_died_costs_nothing_but_reading(changed: Sources) -> None:
    """kill -9 of a run in the middle of borg: no mount, no process, no stray checkpoint; the next archive is right."""
    guest, images = one_disk(changed, "died")
    guest_io(guest, "vda", "write -P 8 40M 1M")
    argv = [str(VMBORG), "--config", str(changed.site.config), "backup", guest.name]
    with spawn(argv, env={"PREFECT_API_URL": changed.api}) as process:
        creating = wait_for(lambda: borg_create(process.pid), timeout=90, what="borg create", interval=0.01)
        creating.suspend()
        process.kill()
    wait_for(lambda: "vmborg" not in mounts(), timeout=20, what="no mount")
    guest_io(guest, "vda", "write -P 9 50M 64k")
    changed.site.ok("recover")
    assert len(checkpoints(guest)) == 1
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"]) == ("incremental", 8 * MIB)


def mounts() -> str:
    """What any process of this host has mounted of ours."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/mounts"):
        try:
            found += [line for line in path.read_text("utf-8", "replace").splitlines() if line.startswith("vmborg ")]
        except OSError:
            continue
    return "\n".join(found)


def test_lost_memories_cost_nothing_but_reading(changed: Sources) -> None:
    """Without borg's cache, without ours, or with a damaged one: everything is read, little is stored, all is right."""
    guest, images = one_disk(changed, "memories")
    shutil.rmtree(changed.site.root / "state" / "borg" / ".cache")
    guest_io(guest, "vda", "write -P 8 40M 64k")
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"]) == ("incremental", LARGE)
    memory = next((changed.site.root / "state" / "segments").glob(f"{guest.uuid}.state"))
    assert memory == state_path(changed_state(changed), guest.uuid)
    memory.write_text(memory.read_text("utf-8").replace("vda", "vdb"), encoding="utf-8")
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], "lost" in told["vda"]["reason"]) == ("full", True)
    assert told["vda"]["stored"] < MIB


def changed_state(host: Sources) -> Any:
    """The folders of the installation."""
    from infra.config.load import load  # noqa: PLC0415 - after the site was configured

    return load(host.site.config).state


def test_a_disk_from_a_backup_is_read_in_full(changed: Sources) -> None:
    """A disk restored in place has no bitmap: everything is read; libvirt's broken checkpoints are cleared away."""
    guest, images = one_disk(changed, "back")
    guest_io(guest, "vda", "write -P 8 40M 1M")
    guest.destroy()
    changed.site.ok("restore", guest.name, "--in-place")
    guest.start()
    guest_io(guest, "vda", "read -P 3 0 1M", "read -P 0 40M 1M", "write -P 4 2M 64k")
    _, told = back_up(changed, guest, images)
    assert told["vda"]["mode"] == "full"
    _, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], told["vda"]["read"], len(checkpoints(guest))) == ("incremental", 0, 1)


def test_a_shut_off_vm(changed: Sources) -> None:
    """Read by the bitmap of the last live backup; while its image stays the same, nothing is read; then as ever."""
    guest, images = one_disk(changed, "off")
    guest_io(guest, "vda", "write -P 8 40M 64k")
    guest.destroy()
    reads = [back_up(changed, guest, images)[1]["vda"]["read"] for _ in range(2)]
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 20M 64k", str(images["vda"])], timeout=60)
    reads.append(back_up(changed, guest, images)[1]["vda"]["read"])
    guest.start()
    reads.append(back_up(changed, guest, images)[1]["vda"]["read"])
    assert reads == [4 * MIB, 0, 8 * MIB, 8 * MIB]


def test_the_layout_may_change_at_any_time(changed: Sources) -> None:
    """From segments to images and back: checkpoints go with the policy, and every archive restores."""
    guest, images = one_disk(changed, "layouts")
    changed.site.configure(read="whole", quiesce="never")
    result = changed.backup(guest.name)[guest.name]["result"]
    assert result["disks"][0]["mode"] == "whole"
    assert checkpoints(guest) == []
    restored, _ = changed.restore_as(guest.name, "changed-layouts-copy")
    assert content_of(Path(restored["disks"]["vda"])) == content_of(images["vda"])
    changed.site.configure(read="changed", quiesce="never")
    guest_io(guest, "vda", "write -P 8 40M 64k")
    _, told = back_up(changed, guest, images)
    assert told["vda"]["mode"] == "full"


def test_a_checkpoint_makes_way(changed: Sources) -> None:
    """qemu reverts to no internal snapshot where a bitmap records: a command, or the next backup, ends that."""
    guest, images = one_disk(changed, "reverted")
    assert f"keeps the checkpoint {checkpoints(guest)[0]}" in changed.site.vmborg("doctor", guest.name).stdout
    virsh(guest.uri, "snapshot-create-as", guest.uuid, "before")
    guest_io(guest, "vda", "write -P 8 0 1M")
    with pytest.raises(CommandFailed, match="active dirty bitmaps"):
        virsh(guest.uri, "snapshot-revert", guest.uuid, "before")
    guest.wait_state("shut off")
    (done,) = changed.site.ok("recover", "--drop-checkpoints", guest.name)["recovered"]
    assert [action.split()[2] for action in done["actions"]] == ["checkpoint", "bitmap"]
    virsh(guest.uri, "snapshot-revert", guest.uuid, "before")
    guest_io(guest, "vda", "read -P 3 0 1M")
    virsh(guest.uri, "snapshot-delete", guest.uuid, "before")
    assert back_up(changed, guest, images)[1]["vda"]["mode"] == "full"
    virsh(guest.uri, "snapshot-create-as", guest.uuid, "again")
    assert back_up(changed, guest, {})[1]["vda"]["mode"] == "whole"
    assert checkpoints(guest) == []
    virsh(guest.uri, "snapshot-revert", guest.uuid, "again")
    virsh(guest.uri, "snapshot-delete", guest.uuid, "again")


def test_what_changed_behind_the_bitmap_is_found(changed: Sources) -> None:
    """A sampled segment that changed without a dirty bit: a full read, an error, and earlier archives are suspect."""
    guest, images = one_disk(changed, "stale")
    before = changed.archives(guest.name)[-1]["archive"]
    guest.destroy()
    with Path(images["vda"]).open("r+b") as image:  # past qemu, as no program should
        content = image.read()
        image.seek(content.index(b"\3" * MIB))
        image.write(b"\4" * MIB)
    guest.start()
    archive, told = back_up(changed, guest, images)
    assert (told["vda"]["mode"], "sampled" in told["vda"]["reason"]) == ("full", True)
    marks = {each["archive"]: bool(each["suspect"]) for each in changed.archives(guest.name)}
    assert marks == {before: True, archive: False}
    assert changed.site.vmborg("status").code == 2
