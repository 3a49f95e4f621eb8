"""The manifest: what was written is what is read, and it says what an archive must hold."""

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infra.manifest import expected_items, parse, render
from infra.model import Consistency
from tests.unit.manifest.sample import GIB, MANIFEST, TEMPLATE, WEB, document


def test_round_trip() -> None:
    """What is rendered is parsed to the same manifest, and the text is stable."""
    text = render(MANIFEST)
    assert parse(text) == MANIFEST
    assert render(parse(text)) == text
    assert text.endswith("}\n")


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1, max_size=40),
    st.integers(0, 2**62),
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from(Consistency),
)
def test_round_trip_of_any_facts(vm: str, size: int, created: datetime, consistency: Consistency) -> None:
    """Names, sizes and times of every kind survive."""
    manifest = MANIFEST.model_copy(update={"vm": vm, "frozen_ms": size, "created": created, "consistency": consistency})
    assert parse(render(manifest)) == manifest


def test_expected_items() -> None:
    """Every file that the manifest promises is expected, with its size where the manifest knows it."""
    assert expected_items(MANIFEST) == {
        "vmborg/manifest.json": None,
        "vmborg/domain.xml": None,
        "vmborg/domain-live.xml": None,
        WEB.archive_path: GIB,
        TEMPLATE.archive_path: 2 * GIB,
        "dev/loop0": GIB,
        "vmborg/nvram.fd": 540672,
        "vmborg/tpm/tpm2/tpm2-00.permall": None,
    }


def test_shared_template_is_one_item() -> None:
    """Two linked clones in one VM may name the same template: it is stored once."""
    clone = WEB.model_copy(update={"archive_path": "images/two.qcow2", "source": "/images/two.qcow2"})
    disk = MANIFEST.disks[0].model_copy(
        update={"target": "vdd", "archive_path": clone.archive_path, "chain": (clone, TEMPLATE)}
    )
    manifest = MANIFEST.model_copy(update={"disks": (*MANIFEST.disks, disk)})
    assert parse(render(manifest)) == manifest


def test_time_keeps_its_instant() -> None:
    """A time with an offset is the same instant after reading."""
    shifted = document()
    shifted["created"] = "2026-11-22T23:00:05+02:00"
    assert parse(json.dumps(shifted)).created - MANIFEST.created == timedelta()
