"""What comes from outside, spoiled at any place: read as it is meant, or refused with the one typed error."""

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest
import yaml
from defusedxml.ElementTree import fromstring
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from infra.config.load import check
from infra.config.render import show
from infra.errors import ConfigError, DomainXmlError, UnsafeArchive
from infra.hypervisor.definition import with_base
from infra.hypervisor.domain_xml import all_paths, all_volumes, disk_sources, is_live, parse_domain
from infra.hypervisor.outside import outside_targets
from infra.hypervisor.restore_trust import TrustFacts, check_trust
from infra.hypervisor.restore_xml import DiskPlace, RewritePlan, rewrite
from infra.journal.store import VERSION, Journal
from infra.model import ImageKind, JournalEntry, Overlay
from infra.qcow2.header import Qcow2Header, parse_header
from tests.unit.hypervisor.recorded import NAMES, xml
from tests.unit.manifest.sample import places, spoil
from tests.unit.test_journal import ENTRY, UUID

WORDS = ["", "file", "block", "volume", "network", "yes", "vda", "/x", "qcow2", "1", "-1", "ü", "a b"]
TAGS = ["disk", "source", "target", "driver", "backingStore", "mirror", "format", "readonly", "nvram", "os", "name"]
ATTRIBUTES = ["type", "device", "file", "dev", "pool", "volume", "protocol", "name", "ready", "job", "index"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)
JOURNAL = {"version": VERSION, "entry": TypeAdapter(JournalEntry).dump_python(ENTRY, mode="json")}
CONFIG = {
    "state_dir": "/s",
    "hypervisor": {"name": "h", "uri": "qemu:///system", "overlay_dir": "/o"},
    "repositories": {
        "main": {
            "location": "ssh://u@h:22/r",
            "passphrase": {"command": ["/bin/pass", "x"]},
            "compression": "zstd,3",
            "lock_wait": "10m",
            "rsh": "ssh -x",
        }
    },
    "vms": {
        "defaults": {"repository": "main", "retention": {"daily": 7, "within": "2d"}, "min_free": "1GiB"},
        "exclude": ["scratch-*"],
        "overrides": {"db": {"quiesce": "require", "exclude_disks": ["vdc"], "commit_pause": 0}},
    },
}

FEW = {"max_examples": 40, "deadline": None}
"""A definition takes milliseconds to spoil and to read; more examples than these find nothing more."""


@st.composite
def definitions(draw: st.DrawFn) -> str:
    """A recorded definition in which a few elements were removed, added, moved or changed."""
    root = fromstring(xml(draw(st.sampled_from(NAMES))))
    for _ in range(draw(st.integers(1, 4))):
        element: Element = draw(st.sampled_from(list(root.iter())))
        match draw(st.sampled_from(["remove", "add", "twice", "attribute", "text"])):
            case "remove":
                for child in list(element)[: draw(st.integers(1, 3))]:
                    element.remove(child)
            case "add":
                SubElement(element, draw(st.sampled_from(TAGS)))
            case "twice":
                element.extend([*element][:2])
            case "attribute":
                element.set(draw(st.sampled_from(ATTRIBUTES)), draw(st.sampled_from(WORDS)))
            case _:
                element.text = draw(st.sampled_from(WORDS))
    return tostring(root, encoding="unicode")


@given(definitions())
@settings(**FEW)
def test_any_spoiled_definition_is_read_or_refused(text: str) -> None:
    """Whatever a definition holds, reading it raises nothing but DomainXmlError, and no image of it is overlooked."""
    try:
        found = parse_domain(text)
    except DomainXmlError:
        return
    is_live(text)
    outside_targets(text)
    named, volumes = all_paths(text), all_volumes(text)
    assert set(disk_sources(text)) == {disk.target for disk in found.disks}
    for disk in found.disks:
        for image in (disk.image, *disk.backing, *([disk.mirror.image] if disk.mirror else [])):
            if image.kind in {"file", "block"}:
                assert image.path in named
            if image.pool and image.volume:
                assert (image.pool, image.volume) in volumes


@given(definitions(), st.sampled_from(ImageKind))
@settings(**FEW)
def test_any_spoiled_definition_is_put_on_its_base(text: str, kind: ImageKind) -> None:
    """A disk that is on its overlay is on its base afterwards; every other disk, and a second time, stays as it was."""
    try:
        disks = {disk.target: disk for disk in parse_domain(text).disks}
    except DomainXmlError:
        return
    there = disk_sources(text)
    on_files = [disk for disk in disks.values() if disk.image.kind == "file" and disk.target]
    if len(disks) < text.count("<disk ") or not on_files:  # one target twice: libvirt refuses that
        return
    moved = on_files[-1]
    overlay = Overlay(moved.target, "/base", kind, "raw", moved.image.path)
    corrected = with_base(text, overlay, volume_path=lambda *_: "")
    assert disk_sources(corrected) == there | {moved.target: "/base"}
    assert with_base(corrected, overlay, volume_path=lambda *_: "") == corrected


@given(text=definitions(), copy=st.booleans())
@settings(**FEW)
def test_any_spoiled_definition_is_restored_or_refused(*, text: str, copy: bool) -> None:
    """A definition out of an archive raises nothing but DomainXmlError and UnsafeArchive, and has the new identity."""
    place = DiskPlace("/new/vda", "qcow2", ImageKind.FILE)
    plan = RewritePlan(name="new", uuid=UUID, disks={"vda": place}, boot_files={"nvram": "/new/nvram"}, copy=copy)
    with suppress(DomainXmlError, UnsafeArchive):
        rewritten = rewrite(text, plan).xml
        root = fromstring(rewritten)
        assert (root.findtext("name"), root.findtext("uuid")) == ("new", UUID)
        check_trust(rewritten, TrustFacts(frozenset(), frozenset({"/new/vda"}), current_xml=text, copy=copy))


def spoiled(document: Any) -> st.SearchStrategy[Any]:
    """A document with something else at one place, or with the place removed."""

    def broken(place: tuple[str | int, ...], value: Any, *, remove: bool) -> Any:
        data = json.loads(json.dumps(document))
        if remove:
            inner = data
            for key in place[:-1]:
                inner = inner[key]
            del inner[place[-1]]
        else:
            spoil(data, place, value)
        return data

    return st.builds(broken, st.sampled_from(places(document)), JSON, remove=st.booleans())


@given(spoiled(JOURNAL))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], **FEW)
def test_any_spoiled_journal_file_is_an_entry_or_a_problem(tmp_path: Path, data: Any) -> None:
    """One that is read as an entry names each file by its full path and once; it stays as it is in any case."""
    journal = Journal(tmp_path)
    raw = json.dumps(data).encode()
    journal.path(UUID).write_bytes(raw)
    found = journal.entries()
    assert len(found.entries) + len(found.problems) == 1
    for entry in found.entries:
        paths = [path for overlay in entry.overlays for path in (overlay.base, overlay.path)]
        assert len(set(paths)) == len(paths)
        assert all(path.startswith("/") for path in paths)
        assert entry.uuid == UUID
    assert journal.path(UUID).read_bytes() == raw


def test_the_journal_file_that_is_spoiled_is_good(tmp_path: Path) -> None:
    """What the spoiled ones were made from is an entry."""
    journal = Journal(tmp_path)
    journal.path(UUID).write_text(json.dumps(JOURNAL), encoding="utf-8")
    assert len(journal.entries().entries) == 1


@given(spoiled(CONFIG))
@example(CONFIG)
@settings(**FEW)
def test_any_spoiled_configuration_is_accepted_or_refused(data: Any) -> None:
    """What is accepted is shown so that it is accepted again, arguments that may be secrets aside.

    What is not raises ConfigError.
    """
    try:
        config = check(yaml.safe_dump(data), name="x")
    except ConfigError:
        assert yaml.safe_dump(data) != yaml.safe_dump(CONFIG)  # False == 0
        return
    shown = show(config)
    assert show(check(shown, name="x")) == shown


@given(
    version=st.integers(0, 4),
    offset=st.integers(0, 2**64 - 1) | st.integers(0, 200),
    length=st.integers(0, 2**32 - 1) | st.integers(0, 100),
    rest=st.binary(max_size=200),
)
@example(version=3, offset=72, length=4, rest=b"\0" * 52 + b"/etc")
def test_any_image_header_is_read_or_refused(*, version: int, offset: int, length: int, rest: bytes) -> None:
    """A qcow2 header with any numbers is refused with ValueError, or the name it gives is within what was read."""
    head = b"QFI\xfb" + struct.pack(">IQI", version, offset, length) + rest
    try:
        found = parse_header(head)
    except ValueError:
        return
    assert isinstance(found, Qcow2Header)
    assert len(found.backing.encode("utf-8", "surrogateescape")) in {0, length}


@given(st.binary(max_size=100).filter(lambda head: not head.startswith(b"QFI\xfb")))
def test_bytes_without_the_signature_are_no_image(head: bytes) -> None:
    """They are refused."""
    with pytest.raises(ValueError, match="signature"):
        parse_header(head)
