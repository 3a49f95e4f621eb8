"""Marks: tiny archives that say something of other archives of their repository (docs/adr/0012)."""

import os
import tempfile
from collections.abc import Mapping

from infra.borg.client import Repository
from infra.borg.comment import render_comment

_CACHE_SUFFIX = "marks"


def set_mark(repository: Repository, name: str, facts: Mapping[str, str]) -> None:
    """Make a mark. Raises BorgError's subtypes."""
    with tempfile.TemporaryDirectory(prefix="vmborg-mark-") as folder:
        content = os.path.join(folder, ".", "mark.txt")  # noqa: PTH118 - borg strips what stands before /./
        comment = render_comment(facts)
        with open(content, "w", encoding="utf-8") as file:  # noqa: PTH123 - a Path would drop the /./
            file.write(comment + "\n")
        repository.create(name, [content], comment=comment, files_cache_suffix=_CACHE_SUFFIX)
