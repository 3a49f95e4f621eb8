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
from infra.manifest.text import expected_items, parse, render

__all__ = [
    "ARCHIVE_DIR",
    "DOMAIN_LIVE_XML",
    "DOMAIN_XML",
    "MANIFEST_PATH",
    "Manifest",
    "ManifestBootFile",
    "ManifestDisk",
    "ManifestImage",
    "ManifestTpm",
    "expected_items",
    "parse",
    "render",
]
