"""A manifest with everything in it, and its JSON to be spoiled."""

import json
from datetime import UTC, datetime
from typing import Any

from infra.manifest import (
    Manifest,
    ManifestBootFile,
    ManifestDisk,
    ManifestImage,
    ManifestTpm,
    render,
)
from infra.model import Consistency, ImageKind, Verdict

UUID = "c1d9f5a4-0b3e-4b52-9d53-5b7a51d3a001"
GIB = 1024**3
TEMPLATE = ManifestImage(
    archive_path="images/template.qcow2",
    source="/images/template.qcow2",
    format="qcow2",
    kind=ImageKind.FILE,
    size=2 * GIB,
    virtual_size=8 * GIB,
    allocated=GIB,
)
WEB = ManifestImage(
    archive_path="images/web [1] ünï *.qcow2",
    source="/images/web [1] ünï *.qcow2",
    format="qcow2",
    kind=ImageKind.FILE,
    size=GIB,
    virtual_size=8 * GIB,
    allocated=GIB,
)
DATA = ManifestImage(
    archive_path="dev/loop0",
    source="/dev/loop0",
    format="raw",
    kind=ImageKind.BLOCK,
    size=GIB,
    virtual_size=GIB,
    allocated=GIB,
)
MANIFEST = Manifest(
    vm="web ünïcode %@ -x",
    uuid=UUID,
    hypervisor="kvm1",
    host="kvm1.example.org",
    created=datetime(2026, 11, 22, 21, 0, 5, tzinfo=UTC),
    vmborg="0.1.0",
    consistency=Consistency.AGENT,
    consistency_reason="3 file systems frozen",
    frozen_ms=312,
    filesystems_frozen=3,
    domain_xml="vmborg/domain.xml",
    domain_live_xml="vmborg/domain-live.xml",
    autostart=True,
    disks=(
        ManifestDisk(
            target="vda",
            verdict=Verdict.COVERED,
            source=WEB.source,
            serial="S1",
            format="qcow2",
            virtual_size=8 * GIB,
            archive_path=WEB.archive_path,
            chain=(WEB, TEMPLATE),
        ),
        ManifestDisk(
            target="vdb",
            verdict=Verdict.COVERED,
            source=DATA.source,
            format="raw",
            virtual_size=GIB,
            archive_path=DATA.archive_path,
            chain=(DATA,),
        ),
        ManifestDisk(target="sda", verdict=Verdict.CDROM, reason="a CD-ROM", source="/iso/x.iso"),
        ManifestDisk(target="vdc", verdict=Verdict.UNCOVERED, reason="network disk", source="nbd://h/x"),
    ),
    boot_files=(
        ManifestBootFile(
            role="nvram", archive_path="vmborg/nvram.fd", source="/nvram/web.fd", size=540672, sha256="0" * 64
        ),
    ),
    tpm=ManifestTpm(archive_dir="vmborg/tpm", files=("tpm2/tpm2-00.permall",)),
)


def document() -> dict[str, Any]:
    """The sample as plain JSON data, to be spoiled."""
    data: dict[str, Any] = json.loads(render(MANIFEST))
    return data


def places(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON document."""
    found = [path] if path else []
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        found += places(value, (*path, key))
    return found


def spoil(data: Any, place: tuple[str | int, ...], value: Any) -> None:
    """Put `value` at a place."""
    for key in place[:-1]:
        data = data[key]
    data[place[-1]] = value
