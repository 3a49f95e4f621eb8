"""Files and folders, fetched over SFTP; what has not changed is not fetched again."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from infra.dumps.source import Line, RemotePath, Source, Unit


class Files(Source):
    """Files of the dump host. Each counts as unchanged while its size and modification time are the same."""

    kind: Literal["files"]
    paths: tuple[RemotePath, ...] = Field(min_length=1, description="Files and folders, with all that is below them.")
    exclude: tuple[Line, ...] = Field(default=(), description="Globs of whole paths that are left out, as */cache/*.")

    def units(self, names: Sequence[str]) -> list[Unit]:  # noqa: ARG002 - files are walked, not listed
        """None: tasks/dumps/files.py walks them."""
        return []

    @property
    def by_hand(self) -> str:
        """What to do with the files: they are parts of a running system, and no two of them change at once."""
        return "Restore with --to FOLDER, look at what differs, and copy what you want: rsync -aHn FOLDER/ root@HOST:/"

    def is_excluded(self, path: str) -> bool:
        """Whether a path is left out."""
        return any(fnmatchcase(path, glob) for glob in self.exclude)
