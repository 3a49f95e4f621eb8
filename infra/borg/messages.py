"""The lines that `borg --log-json` writes on stderr (borg docs: internals/frontends). Pure."""

import json
from dataclasses import dataclass
from typing import Any, cast

_HARMLESS = ("The files cache can't be read.", "Continuing without files cache")
_WARNING_LEVELS = {"WARNING", "ERROR", "CRITICAL"}


@dataclass(frozen=True, slots=True)
class ArchiveProgress:
    """How far a create is; bytes."""

    original_size: int
    deduplicated_size: int
    path: str
    finished: bool


@dataclass(frozen=True, slots=True)
class PercentProgress:
    """How far an extract or check is; bytes or steps."""

    current: int
    total: int
    finished: bool


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What create did with a path: A added, M modified, U unchanged, C changed while read, E error."""

    status: str
    path: str


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A line for people; `msgid` is borg's own name of an error, where it has one."""

    level: str
    message: str
    msgid: str

    @property
    def is_warning(self) -> bool:
        """Whether it tells that something went wrong."""
        return self.level in _WARNING_LEVELS and not self.is_harmless

    @property
    def is_harmless(self) -> bool:
        """Whether it only tells that a VM has no files cache yet, as at its first backup."""
        return self.message.startswith(_HARMLESS) or not self.message


Message = ArchiveProgress | PercentProgress | FileStatus | LogMessage


def parse_line(line: str) -> Message | None:
    """One line of stderr; None for a kind that nobody here needs. What is not JSON (argparse errors) is an error line.

    Raises nothing.
    """
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        text = line.strip()
        return LogMessage("ERROR", text, "") if text else None
    if not isinstance(data, dict):
        return LogMessage("ERROR", line.strip(), "")
    return _parse(cast("dict[str, Any]", data))


def _parse(data: dict[str, Any]) -> Message | None:
    kind = data.get("type")
    finished = bool(data.get("finished"))
    if kind == "archive_progress":
        sizes = _number(data, "original_size"), _number(data, "deduplicated_size")
        return ArchiveProgress(*sizes, str(data.get("path", "")), finished)
    if kind == "progress_percent":
        return PercentProgress(_number(data, "current"), _number(data, "total"), finished)
    if kind == "file_status":
        return FileStatus(str(data.get("status", "")), str(data.get("path", "")))
    if kind == "log_message":
        return LogMessage(str(data.get("levelname", "")), str(data.get("message", "")), str(data.get("msgid") or ""))
    if kind == "question_prompt":
        return LogMessage("ERROR", str(data.get("message", "")), str(data.get("msgid") or ""))
    return None


def _number(data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    return int(value) if isinstance(value, int | float) and abs(value) < float("inf") else 0
