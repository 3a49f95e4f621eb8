"""Disks that an archive holds as segments: files of one size, which are the disk in the order of their names. Pure."""

SEGMENTS_DIR = "disks"
"""The directory of an archive that holds them, a folder a disk."""

MOST_SEGMENTS = 1 << 22
"""Of one disk; that is 64 TiB in segments of 16 MiB."""


def disk_folder(target: str) -> str:
    """Where a disk's segments are in an archive."""
    return f"{SEGMENTS_DIR}/{target}"


def segment_name(number: int) -> str:
    """The file of a segment."""
    return f"{number:08x}"


def segment_sizes(size: int, segment: int) -> dict[str, int]:
    """The files of a disk of so many bytes, and the bytes of each; the last one may be shorter."""
    return {segment_name(number): min(segment, size - start) for number, start in enumerate(range(0, size, segment))}
