"""Putting a domain back on its bases, from every state a run or its guest can leave it in. Real libvirt, real qemu."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.model import JournalEntry, Phase
from tests.guests import Daemons, virsh, wait_for
from tests.integration.bare import URI, Bare, World, digest, holds

pytestmark = pytest.mark.integration

TARGETS = ("vda", "vdb", "vdc", "vdd")


@pytest.fixture
def world(daemons: Daemons) -> Iterator[World]:  # noqa: ARG001 - must run
    """Images and domains of one test."""
    with World() as world:
        yield world


def assert_back(bare: Bare, entry: JournalEntry, *, inactive: bool = True) -> None:
    """On its bases in every definition, no overlay left, and nothing more to do."""
    bases = {overlay.target: overlay.base for overlay in entry.overlays}
    if bare.state() != "shut off":
        assert {target: bare.sources()[target] for target in bases} == bases
        assert "<mirror" not in virsh(URI, "dumpxml", bare.uuid)
    if inactive:
        assert {target: bare.sources(inactive=True)[target] for target in bases} == bases
    assert [overlay.path for overlay in entry.overlays if Path(overlay.path).exists()] == []
    assert bare.put_back(entry).actions == ()


def test_a_running_guest_is_put_back(world: World) -> None:
    """qcow2, raw, device and clone all end on their bases with what the guest wrote; the template keeps its bytes."""
    disks, template = world.all_kinds()
    bare = world.bare(*disks).define().start()
    for target in TARGETS:
        bare.write(target, 1)
    definition, frozen = bare.definition(), digest(template)
    entry = bare.snapshot()
    for target in TARGETS:
        bare.write(target, 2, offset=2**20)
    told: list[str] = []

    report = bare.put_back(entry, on_action=told.append)

    assert list(report.actions) == told
    assert len(told) == 2 * len(TARGETS)
    assert_back(bare, entry)
    assert bare.state() == "running"
    assert bare.definition() == definition
    assert digest(template) == frozen
    assert all(bare.read(target, 1) and bare.read(target, 2, offset=2**20) for target in TARGETS)
    bare.domain.destroy()
    assert all(holds(disk, 1) and holds(disk, 2, offset=2**20) for disk in disks if disk.path)


def test_a_guest_that_shut_off_on_its_overlays_is_put_back(world: World) -> None:
    """What the guest wrote is committed offline, its definition is as before to the letter, and it starts again."""
    disks, template = world.all_kinds()
    bare = world.bare(*disks).define().start()
    definition, frozen = bare.definition(), digest(template)
    entry = bare.snapshot()
    for target in TARGETS:
        bare.write(target, 2)
    bare.domain.destroy()

    bare.put_back(entry)

    assert_back(bare, entry)
    assert bare.definition() == definition
    assert digest(template) == frozen
    assert all(holds(disk, 2) for disk in disks if disk.path)
    bare.start()
    assert all(bare.read(target, 2) for target in TARGETS)


@pytest.mark.parametrize("ended", [False, True])
def test_a_transient_domain_is_put_back(world: World, *, ended: bool) -> None:
    """It has no other definition than its live one; if it ended, its journal is enough and nothing is defined."""
    disk, clone = world.disk("vda"), world.disk("vdb", backing=world.disk("template").path)
    bare = world.bare(disk, clone).create()
    entry = bare.snapshot()
    bare.write("vda", 3)
    bare.write("vdb", 4)
    if ended:
        bare.domain.destroy()

    bare.put_back(entry)

    assert bare.exists() is not ended
    if not ended:
        assert_back(bare, entry, inactive=False)
        bare.domain.destroy()
    assert holds(disk, 3)
    assert holds(clone, 4)
    assert bare.put_back(entry).actions == ()


@pytest.mark.parametrize("ended", [False, True])
def test_a_domain_undefined_in_mid_run_is_put_back(world: World, *, ended: bool) -> None:
    """`virsh undefine` of a running domain is allowed; nothing is defined again."""
    disk = world.disk("vda", "raw")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    virsh(URI, "undefine", bare.uuid)
    bare.write("vda", 5)
    if ended:
        bare.domain.destroy()

    bare.put_back(entry)

    assert bare.exists() is not ended
    if not ended:
        bare.domain.destroy()
    assert holds(disk, 5)
    assert not Path(entry.overlays[0].path).exists()


def test_a_domain_renamed_after_its_shut_off_is_found(world: World) -> None:
    """The journal's UUID counts, not its name."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 6)
    bare.domain.destroy()
    virsh(URI, "domrename", bare.uuid, f"{bare.name}-new")

    bare.put_back(entry)

    assert_back(bare, entry)
    assert bare.domain.name == f"{bare.name}-new"
    assert holds(disk, 6)


def test_a_paused_guest_stays_paused(world: World) -> None:
    """Commit and pivot work while a user has it paused, and it is left so."""
    bare = world.bare(world.disk("vda")).define().start()
    bare.domain.suspend()
    entry = bare.snapshot()
    bare.put_back(entry)
    assert_back(bare, entry)
    assert bare.state() == "paused"


def test_a_guest_restarted_on_its_overlay_is_put_back_live(world: World) -> None:
    """Shut off and started again in mid-run it runs on the overlay as before."""
    disk = world.disk("vda")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 7)
    bare.domain.destroy()
    bare.start()
    bare.write("vda", 8, offset=2**20)
    bare.put_back(entry)
    assert_back(bare, entry)
    assert bare.read("vda", 7)
    assert bare.read("vda", 8, offset=2**20)


def test_a_saved_state_is_put_back(world: World) -> None:
    """A managed save keeps its own definition: it resumes on the base, with the disk as it was."""
    disk = world.disk("vda", "raw")
    bare = world.bare(disk).define().start()
    entry = bare.snapshot()
    bare.write("vda", 9)
    virsh(URI, "managedsave", bare.uuid)

    bare.put_back(entry)

    assert not Path(entry.overlays[0].path).exists()
    assert holds(disk, 9)
    bare.start()
    assert_back(bare, entry)
    assert bare.read("vda", 9)


@pytest.mark.parametrize("off", [False, True])
def test_a_volume_of_a_storage_pool_stays_one(world: World, *, off: bool) -> None:
    """A disk that its definition names by pool and volume is named so again afterwards."""
    disk = world.disk("vda")
    assert disk.path
    pool = f"act-{world.folder.name}"
    virsh(URI, "pool-create-as", pool, "dir", "--target", str(world.folder))
    try:
        bare = world.bare(disk)
        bare.xml = bare.xml.replace("<disk type='file'", "<disk type='volume'").replace(
            f"file='{disk.path}'", f"pool='{pool}' volume='{disk.path.name}'"
        )
        bare.define().start()
        definition = bare.definition()
        assert f"pool='{pool}'" in definition
        entry = bare.snapshot()
        bare.write("vda", 10)
        if off:
            bare.domain.destroy()
        bare.put_back(entry)
        assert bare.definition() == definition
        assert not Path(entry.overlays[0].path).exists()
        bare.forget()
        assert holds(disk, 10)
    finally:
        virsh(URI, "pool-destroy", pool)


def test_a_definition_made_from_the_windows_xml_is_corrected(world: World) -> None:
    """An administrator who redefines what he dumped in mid-run gets the base, not an overlay that is gone."""
    bare = world.bare(world.disk("vda", "raw")).define().start()
    definition = bare.definition()
    entry = bare.snapshot()
    dumped = bare.definition()
    assert entry.overlays[0].path in dumped
    saved: list[JournalEntry] = []
    bare.put_back(entry, save=saved.append)
    world.hypervisor.define(dumped)

    bare.put_back(saved[-1])

    assert_back(bare, entry)
    assert bare.definition() == definition


@pytest.mark.parametrize("where", ["--live", "--config"])
def test_a_disk_unplugged_in_mid_run_is_put_back(world: World, where: str) -> None:
    """Taken from the running guest alone the definition keeps it, on its base; taken from the definition it is gone."""
    system, disk = world.disk("vda"), replace(world.disk("sdb"), bus="scsi")
    bare = world.bare(system, disk).define().start()
    entry = bare.snapshot()
    bare.write("sdb", 11)
    virsh(URI, "detach-disk", bare.uuid, "sdb", where)
    if where == "--live":
        wait_for(lambda: "sdb" not in bare.sources(), timeout=20, what="end of the unplugged disk")
    else:
        bare.domain.destroy()

    bare.put_back(entry)

    assert bare.sources(inactive=True).get("sdb", "") == (str(disk.path) if where == "--live" else "")
    assert not any(Path(overlay.path).exists() for overlay in entry.overlays)
    bare.forget()
    assert holds(disk, 11)


def test_before_the_snapshot_there_is_nothing_to_do(world: World) -> None:
    """A run that died between journal and snapshot left nothing."""
    bare = world.bare(world.disk("vda")).define().start()
    entry = bare.snapshot()
    bare.put_back(entry)
    prepared = replace(entry, phase=Phase.PREPARED)
    assert bare.put_back(prepared).actions == ()
    assert_back(bare, prepared)
