"""Recognising an overlay of ours by its name, when no journal entry tells of it."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_NAME = re.compile(r".+\.vmborg-[0-9a-f]{8}\.qcow2", re.DOTALL)  # snapshot.overlay_path makes these


def is_overlay(path: str) -> bool:
    """Whether a file of this name is an overlay that a backup made. Pure."""
    return _NAME.fullmatch(path.rpartition("/")[2]) is not None


def leftovers(folders: Iterable[Path]) -> Iterator[str]:
    """The paths of all such files in these folders; a folder that cannot be read holds none."""
    for folder in sorted(set(folders)):
        try:
            names = sorted(entry.name for entry in folder.iterdir())
        except OSError:
            continue
        yield from (str(folder / name) for name in names if is_overlay(name))
