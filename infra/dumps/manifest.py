"""What a tree of dumps says of itself. Read again by the next pull, and out of archives by list and restore.

Sizes are bytes, durations seconds, times UTC.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from infra.dumps.source import Role
from infra.errors import ManifestError

FILE = "manifest.json"
_SHOWN = 5  # failures of one source; a folder without rights has thousands


def _relative(path: str) -> str:
    parts = path.split("/")
    if not path or any(part in {"", ".", ".."} for part in parts) or "\0" in path:
        raise ValueError("must be a relative path without empty parts, `.` and `..`")
    return path


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Dump(_Part):
    """One dump in the tree."""

    role: Role
    database: str = ""
    path: Annotated[str, AfterValidator(_relative)]  # below the tree
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    taken: AwareDatetime
    seconds: float = 0.0
    exit_code: int = 0
    mtime: float = 0.0  # of a fetched file on its host
    stale: bool = False  # it is the last good one of an earlier pull
    error: str = ""  # why, in one line

    @property
    def title(self) -> str:
        """What people call it."""
        return self.database or (PurePosixPath(self.path).name if self.role is Role.FILE else self.role.value)


class Failure(_Part):
    """A dump that was wanted and could not be taken."""

    role: Role
    database: str = ""
    path: str = ""  # that its dump would have below the tree
    error: str
    exit_code: int | None = None

    @property
    def line(self) -> str:
        """What and why; of a file its error says both."""
        return self.error if self.role is Role.FILE else f"{self.title}: {self.error}"

    @property
    def title(self) -> str:
        """What people call it."""
        return self.database or self.path or self.role.value


class DumpedSource(_Part):
    """What became of one source."""

    source: str
    kind: str
    tool: str = ""  # what the dumping program says of its version
    seconds: float = 0.0
    dumps: tuple[Dump, ...] = ()
    failures: tuple[Failure, ...] = ()
    error: str = ""  # why nothing of it could be dumped
    skipped: int = 0  # sockets, devices and the like below the paths of a files source

    @property
    def stale(self) -> bool:
        """Whether any of its dumps is an old one."""
        return any(dump.stale for dump in self.dumps)

    @property
    def good(self) -> bool:
        """Whether everything that was wanted is there and fresh."""
        return not (self.error or self.failures or self.stale)

    @property
    def problems(self) -> tuple[str, ...]:
        """What failed, a line each, the first few of many."""
        lines = [f"{self.source}: {self.error}"] if self.error else []
        lines += [f"{self.source}: {failure.line}" for failure in self.failures]
        left = len(lines) - _SHOWN
        more = [f"{self.source}: and {left} more, see `vmborg dumps list HOST --archive NAME`"] if left > 0 else []
        return tuple(lines[:_SHOWN] + more)

    @property
    def fresh(self) -> bool:
        """Whether this pull brought anything of it."""
        return any(not dump.stale for dump in self.dumps)


class DumpManifest(_Part):
    """A whole tree."""

    version: Literal[1] = 1
    host: str
    address: str
    hypervisor: str
    vmborg: str
    started: AwareDatetime
    sources: tuple[DumpedSource, ...]

    @property
    def size(self) -> int:
        """Of all dumps."""
        return sum(dump.size for source in self.sources for dump in source.dumps)

    @property
    def good(self) -> bool:
        """Whether everything that was wanted is there and fresh."""
        return all(source.good for source in self.sources)

    def source(self, label: str) -> DumpedSource | None:
        """One source by its label."""
        return next((each for each in self.sources if each.source == label), None)


def render(manifest: DumpManifest) -> str:
    """As JSON, with a newline at its end."""
    return manifest.model_dump_json(indent=2) + "\n"


def parse(text: str) -> DumpManifest:
    """Read a manifest that may come from anywhere. Raises ManifestError."""
    try:
        return DumpManifest.model_validate_json(text)
    except (ValidationError, ValueError, RecursionError) as error:
        raise ManifestError(
            "The manifest of these dumps is unreadable.",
            evidence=str(error)[:2000],
            remedy="Use another archive, or bring its files back by hand: docs/dumps.md.",
        ) from error


def read(directory: Path) -> DumpManifest | None:
    """The manifest of a tree; None if there is none. Raises ManifestError."""
    try:
        return parse((directory / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return None


def carried(dump: Dump, error: str) -> Dump:
    """An earlier dump, as it is kept in place of one that failed."""
    return dump.model_copy(update={"stale": True, "error": " ".join(error.split())[:800]})
