"""Backups that read only what changed: every archive is the whole disk all the same, whatever happened in between.

The domains have no operating system, so a disk holds what the test wrote and nothing else. Each archive is compared,
byte for byte, with what qemu-img reads of the image.
"""

from pathlib import Path
from typing import Any

import pytest

from infra.process import run
from tests.e2e.sources import MIB, Sources, disk, guest_io
from tests.guests import Guest, virsh

pytestmark = pytest.mark.e2e

LARGE = 64 * MIB


@pytest.fixture(scope="module")
def changed(host: Sources) -> Sources:
    """The installation, with `read: changed`."""
    host.site.configure(read="changed", quiesce="never")
    return host


def read_disk(path: Path) -> bytes:
    """What a guest would read."""
    target = path.with_name(f"{path.name}.seen")
    run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(path), str(target)], timeout=120)
    try:
        return target.read_bytes()
    finally:
        target.unlink()


def extract(host: Sources, archive: str, target: str) -> bytes:
    """What plain borg gives back."""
    where = host.folder / "extracted"
    with where.open("wb") as file:
        host.site.repository.extract_to(archive, f"disks/{target}", file)
    try:
        return where.read_bytes()
    finally:
        where.unlink()


def back_up(host: Sources, guest: Guest, images: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Back it up and compare every disk; the result's disks by target."""
    result = host.backup(guest.name)[guest.name]["result"]
    for target, path in images.items():
        assert extract(host, result["archive"], target) == read_disk(path), target
    return {each["target"]: each for each in result["disks"]}


def checkpoints(guest: Guest) -> list[str]:
    """Names of its checkpoints."""
    return virsh(guest.uri, "checkpoint-list", guest.uuid, "--name").split()


def test_the_second_backup_reads_what_changed(changed: Sources) -> None:
    """The first reads everything, the next ones only the segments written to; one checkpoint of ours is kept."""
    image = changed.image("second.qcow2", fill=3, size=LARGE)
    guest = changed.define("changed-second", disk("vda", image)).start()
    first = back_up(changed, guest, {"vda": image})["vda"]
    assert (first["mode"], first["read"]) == ("full", LARGE)
    guest_io(guest, "vda", f"write -P 7 {33 * MIB} 65536")
    second = back_up(changed, guest, {"vda": image})["vda"]
    assert (second["mode"], second["read"]) == ("incremental", 4 * MIB)
    third = back_up(changed, guest, {"vda": image})["vda"]
    assert (third["mode"], third["read"]) == ("incremental", 0)
    assert len(checkpoints(guest)) == 1
