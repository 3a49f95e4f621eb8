"""What an archive says of itself: versioned, strict, and safe to read from a stranger."""

from infra.manifest.models import (
    ARCHIVE_DIR,
    DOMAIN_LIVE_XML,
    DOMAIN_XML,
    MANIFEST_PATH,
    Manifest,
    ManifestBootFile,
    ManifestDisk,
    ManifestImage,
    ManifestTpm,
)
from infra.manifest.segments import SEGMENTS_DIR, disk_folder, segment_name, segment_sizes
from infra.manifest.text import expected_items, parse, render

__all__ = [
    "ARCHIVE_DIR",
    "DOMAIN_LIVE_XML",
    "DOMAIN_XML",
    "MANIFEST_PATH",
    "SEGMENTS_DIR",
    "Manifest",
    "ManifestBootFile",
    "ManifestDisk",
    "ManifestImage",
    "ManifestTpm",
    "disk_folder",
    "expected_items",
    "parse",
    "render",
    "segment_name",
    "segment_sizes",
]
