"""Repositories that are sound, damaged, or not what their manifests promise, as `vmborg check` sees them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.hypervisor.connection import Domain, Hypervisor
from infra.manifest import Manifest
from tests.guests import Daemons, DiskSpec, make_disk
from tests.integration.archive_factory import ArchiveFactory
from tests.integration.hosting import Host, defined
from tests.integration.spoiling import flipped_byte, largest_segment

pytestmark = pytest.mark.integration

MIB = 1024**2


@pytest.fixture
def host(tmp_path: Path, images: Path, daemons: Daemons, prefect_server: str) -> Host:
    """A configured host with an empty repository."""
    made = Host(tmp_path, images, daemons.uri, api=prefect_server)
    assert made.run("init").code == 0
    return made


@pytest.fixture
def web(host: Host) -> Iterator[Domain]:
    """A VM with a qcow2 and a raw disk that hold something."""
    disks = [
        DiskSpec("vda", make_disk(host.images / "checked-a.qcow2", size=32 * MIB, data=4 * MIB)),
        DiskSpec(
            "vdb", make_disk(host.images / "checked-b.raw", size=16 * MIB, format="raw", data=2 * MIB), format="raw"
        ),
    ]
    with Hypervisor.open(host.uri) as hypervisor, defined(hypervisor, "checked web", disks) as domain:
        yield domain


def result(host: Host, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of a check, and what it says of the repository."""
    call = host.run("check", "--json", *options)
    return call.code, call.document["repositories"][0]


def test_a_sound_repository(host: Host, web: Domain) -> None:
    """Segments, key and one archive are looked at; the archive is read whole; both kinds of check are told."""
    archive = ArchiveFactory(host.repository(), host.root).make(web)
    code, found = result(host)
    assert (code, found["checked"], found["error"]) == (0, "segments", None)
    assert found["key"] == "the exported key is the repository's"
    assert [(each["archive"], each["files"]) for each in found["samples"]] == [(archive, 2)]
    assert found["samples"][0]["size"] > 16 * MIB
    code, found = result(host, "--verify-data")
    assert (code, found["checked"]) == (0, "everything, data verified")


def test_a_flipped_byte_is_a_failure(host: Host, web: Domain) -> None:
    """borg ends with 1, a mere warning, for damage: the check fails, and status is critical until one is good."""
    ArchiveFactory(host.repository(), host.root).make(web)
    with flipped_byte(largest_segment(host.root / "repositories" / "main")):
        code, found = result(host)
        assert (code, found["error"]["type"]) == (1, "RepositoryDamaged")
        assert found["error"]["remedy"]
        problems = host.run("status", "--json").document["problems"]
        assert [(each["subject"], each["health"]) for each in problems] == [("repository main", "critical")]
    assert result(host)[0] == 0
    assert host.run("status", "--json").document["problems"] == []


def test_an_archive_that_breaks_its_promise(host: Host, web: Domain) -> None:
    """An archive whose image is not what the manifest says is found by reading it, although borg finds nothing."""

    def lie(manifest: Manifest) -> Manifest:
        disks = [
            disk.model_copy(
                update={"chain": tuple(image.model_copy(update={"virtual_size": 5 * MIB}) for image in disk.chain)}
            )
            for disk in manifest.disks
        ]
        return manifest.model_copy(update={"disks": tuple(disks)})

    ArchiveFactory(host.repository(), host.root).make(web, edit_manifest=lie)
    code, found = result(host)
    assert (code, found["error"]["type"]) == (1, "ArchiveIncomplete")
    assert "its header does not say 5242880 bytes" in found["error"]["evidence"]
    assert "a raw image of 16777216 bytes, 5242880 expected" in found["error"]["evidence"]


def test_keys(host: Host) -> None:
    """A key that was never exported is exported; one of another repository is an error."""
    key = host.state / "keys" / "main.key"
    original = key.read_text()
    key.unlink()
    assert "exported now" in result(host)[1]["key"]
    assert key.read_text() == original
    shutil.rmtree(host.root / "repositories" / "main")
    shutil.rmtree(host.state / "borg")
    host.repository().init()
    code, found = result(host)
    assert (code, found["error"]["type"]) == (1, "KeyMismatch")
    assert key.read_text() == original
    assert sorted(path.name for path in key.parent.iterdir()) == ["main.key"]
