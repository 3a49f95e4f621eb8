"""A manifest from a stranger: read as it is meant, or refused with ManifestError, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.errors import ManifestError
from infra.manifest import expected_items, parse, render
from tests.unit.manifest.sample import MANIFEST, UUID, WEB, document, places, spoil

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
HOSTILE_PATHS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\x1b[31mb",
    "a\x7fb",
    "a\x9bb",
    "a\u2028b",
    "\ud800",
    "a" * 5000,
]


@given(st.text(max_size=300))
@example("")
@example("[" * 200_000)
@example('{"version":' * 50_000)
@example('{"version": 1' + "0" * 5000 + "}")
@example("\ufeff{}")
def test_any_text_is_a_manifest_or_an_error(text: str) -> None:
    """No text raises anything but ManifestError."""
    with pytest.raises(ManifestError):
        parse(text)


@given(JSON)
@example({"version": float("nan")})
@example({"version": True})
@example({"version": 1.0})
@example([1])
def test_any_json_is_a_manifest_or_an_error(data: Any) -> None:
    """No JSON document raises anything but ManifestError."""
    with pytest.raises(ManifestError):
        parse(json.dumps(data))


@given(st.data())
def test_any_spoiled_place_is_refused_or_harmless(data: st.DataObject) -> None:
    """Any value at any place is either refused with ManifestError, or read without leaving the archive."""
    broken = document()
    spoil(broken, data.draw(st.sampled_from(places(broken))), data.draw(JSON))
    try:
        manifest = parse(json.dumps(broken))
    except ManifestError:
        return
    for path in expected_items(manifest):
        assert not path.startswith("/")
        assert ".." not in path.split("/")


@pytest.mark.parametrize("hostile", HOSTILE_PATHS, ids=ascii)
@pytest.mark.parametrize(
    "place",
    [
        ("domain_xml",),
        ("domain_live_xml",),
        ("disks", 0, "archive_path"),
        ("disks", 0, "chain", 0, "archive_path"),
        ("boot_files", 0, "archive_path"),
        ("tpm", "archive_dir"),
        ("tpm", "files", 0),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_hostile_paths_are_refused(place: tuple[str | int, ...], hostile: str) -> None:
    """A path in the archive is relative, has no part that leads elsewhere, and nothing a terminal obeys."""
    broken = document()
    spoil(broken, place, hostile)
    with pytest.raises(ManifestError):
        parse(json.dumps(broken))


Edit = Callable[[dict[str, Any]], object]
REFUSED: dict[str, Edit] = {
    "unknown key": lambda data: data.update(command="rm"),
    "unknown key of a disk": lambda data: data["disks"][0].update(command="rm"),
    "missing key": lambda data: data.pop("uuid"),
    "no disks key": lambda data: data.pop("disks"),
    "version 2": lambda data: data.update(version=2),
    "version as text": lambda data: data.update(version="1"),
    "unknown layout": lambda data: data["disks"][0].update(layout="stripes"),
    "segments of a chain": lambda data: data["disks"][0].update(layout="segments"),
    "segments of an image": lambda data: data["disks"][0].update(segment=4096),
    "unknown verdict": lambda data: data["disks"][0].update(verdict="fine"),
    "negative size": lambda data: data["disks"][0]["chain"][0].update(size=-1),
    "fractional size": lambda data: data["disks"][0]["chain"][0].update(size=1.5),
    "size as text": lambda data: data["disks"][0]["chain"][0].update(size="1"),
    "size beyond 64 bits": lambda data: data["disks"][0]["chain"][0].update(size=2**64),
    "uuid in capitals": lambda data: data.update(uuid=UUID.upper()),
    "uuid with a path": lambda data: data.update(uuid="../../../etc"),
    "time without zone": lambda data: data.update(created="2026-11-22T21:00:05"),
    "time as number": lambda data: data.update(created=1795388252),
    "short digest": lambda data: data["boot_files"][0].update(sha256="00"),
    "empty name": lambda data: data.update(vm=""),
    "name with an escape sequence": lambda data: data.update(vm="a\x1b[31m"),
    "name with a C1 control": lambda data: data.update(vm="a\x9b31m"),
    "target twice": lambda data: data["disks"][1].update(target="vda"),
    "target with a path": lambda data: data["disks"][1].update(target="../vdb"),
    "covered without images": lambda data: data["disks"][0].update(chain=[]),
    "covered without its place": lambda data: data["disks"][0].update(archive_path=None),
    "covered at another place": lambda data: data["disks"][0].update(archive_path="images/other"),
    "uncovered with images": lambda data: data["disks"][0].update(verdict="uncovered"),
    "two images at one place": lambda data: data["disks"][1]["chain"][0].update(archive_path=WEB.archive_path),
    "an image over the manifest": lambda data: (
        data["disks"][1].update(archive_path="vmborg/manifest.json"),
        data["disks"][1]["chain"][0].update(archive_path="vmborg/manifest.json"),
    ),
    "a definition outside the metadata": lambda data: data.update(domain_xml="images/web.xml"),
    "a boot file outside the metadata": lambda data: data["boot_files"][0].update(archive_path="images/x"),
    "a TPM outside the metadata": lambda data: data["tpm"].update(archive_dir="images"),
}


@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED.keys())
def test_contradictions_are_refused(edit: Edit) -> None:
    """A manifest that says what no backup writes is refused."""
    broken = document()
    edit(broken)
    with pytest.raises(ManifestError) as caught:
        parse(json.dumps(broken))
    assert caught.value.brief


def test_a_key_twice_is_refused() -> None:
    """JSON with one key twice means two things to two readers."""
    text = render(MANIFEST)
    with pytest.raises(ManifestError):
        parse(text.replace('"version": 1,', '"version": 1,\n  "vm": "other",', 1))


def test_newer_version_says_so() -> None:
    """The remedy for a manifest of a later vmborg is another one than for a broken manifest."""
    newer = json.dumps({**document(), "version": 7, "new": "key"})
    with pytest.raises(ManifestError) as caught:
        parse(newer)
    assert "version" in caught.value.brief
    assert "7" in caught.value.evidence
    assert caught.value.remedy


def test_error_does_not_repeat_the_document() -> None:
    """The evidence of a huge wrong manifest stays short enough for a log line."""
    broken = document()
    broken["disks"] = [{"x" * 50: "y" * 1000}] * 500
    with pytest.raises(ManifestError) as caught:
        parse(json.dumps(broken))
    assert len(caught.value.evidence) <= 2500
