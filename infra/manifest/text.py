"""Manifest from and to JSON, and what an archive must hold to keep its manifest's promise."""

import json
from typing import Any, cast

from pydantic import ValidationError

from infra.errors import ManifestError
from infra.manifest.models import MANIFEST_PATH, Manifest
from infra.manifest.segments import segment_sizes
from infra.model import Layout

_SUPPORTED = 1
_LONGEST = 16 * 1024 * 1024  # characters; a manifest of a thousand disks has less than one
_REMEDY = "Restore another archive, or bring this one's files back by hand: docs/restore-by-hand.md."


def render(manifest: Manifest) -> str:
    """The manifest as JSON, with a newline at its end."""
    return manifest.model_dump_json(indent=2) + "\n"


def parse(text: str) -> Manifest:
    """Read a manifest that may come from anywhere.

    Raises ManifestError: no JSON, another version, unknown keys, paths that lead out of the archive.
    """
    if len(text) > _LONGEST:
        raise ManifestError("The manifest is too long to be one.", evidence=f"{len(text)} characters", remedy=_REMEDY)
    try:
        data: Any = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ManifestError("The manifest is not JSON.", evidence=str(error)[:500], remedy=_REMEDY) from error
    version = cast("dict[str, Any]", data).get("version") if isinstance(data, dict) else None
    if version != _SUPPORTED:
        raise ManifestError(
            "The manifest is of a version that this vmborg does not know.",
            evidence=f"version {str(version)[:50]}, known: {_SUPPORTED}",
            remedy="Restore with the vmborg that made it, or by hand: docs/restore-by-hand.md.",
        )
    try:
        # Through JSON again: only there do strict numbers and dates mean what they say.
        return Manifest.model_validate_json(json.dumps(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ManifestError(
            "The manifest is unreadable or unsafe.", evidence=str(error)[:2000], remedy=_REMEDY
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice: two readers would read two manifests")
    return found


def expected_items(manifest: Manifest) -> dict[str, int | None]:
    """Every path that the archive has to hold, with its size in bytes where the manifest knows it."""
    items: dict[str, int | None] = {MANIFEST_PATH: None, manifest.domain_xml: None}
    if manifest.domain_live_xml:
        items[manifest.domain_live_xml] = None
    for disk in manifest.disks:
        if disk.layout is Layout.SEGMENTS:
            sizes = segment_sizes(disk.virtual_size, disk.segment)
            items |= {f"{disk.archive_path}/{name}": size for name, size in sizes.items()}
        else:
            items |= {image.archive_path: image.size for image in disk.chain}
    items |= {file.archive_path: file.size for file in manifest.boot_files}
    if manifest.tpm:
        items |= {f"{manifest.tpm.archive_dir}/{name}": None for name in manifest.tpm.files}
    return items
