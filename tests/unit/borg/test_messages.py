"""borg's JSON lines: each kind becomes its message, and no line is too strange to be read."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.borg.messages import ArchiveProgress, FileStatus, LogMessage, PercentProgress, parse_line

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
TYPES = st.sampled_from(
    ["archive_progress", "progress_percent", "progress_message", "file_status", "log_message", "question_prompt"]
)
FIELDS = st.sampled_from(
    ["original_size", "deduplicated_size", "path", "finished", "current", "total", "status", "message", "msgid",
     "levelname"]
)  # fmt: skip


def test_progress_of_a_create() -> None:
    """The sizes and the path of an archive_progress line, as borg 1.4.5 writes it."""
    line = (
        '{"original_size": 8388608, "compressed_size": 7000000, "deduplicated_size": 6000000, "nfiles": 1, '
        '"path": "var/lib/a\\u00fc.qcow2", "time": 1795385976.09, "type": "archive_progress", "finished": false}'
    )
    assert parse_line(line) == ArchiveProgress(8388608, 6000000, "var/lib/aü.qcow2", finished=False)


def test_end_of_a_create() -> None:
    """The last archive_progress line has no sizes."""
    line = '{"time": 1795385976.17, "type": "archive_progress", "finished": true}'
    assert parse_line(line) == ArchiveProgress(0, 0, "", finished=True)


def test_progress_of_an_extract() -> None:
    """Bytes done and bytes in all."""
    line = (
        '{"message": "  0.0% Extracting: a", "current": 3, "total": 10, "info": ["a"], "operation": 1, '
        '"msgid": "extract", "type": "progress_percent", "finished": false, "time": 1.0}'
    )
    assert parse_line(line) == PercentProgress(3, 10, finished=False)


def test_status_of_a_file() -> None:
    """The letter and the path."""
    line = '{"type": "file_status", "status": "U", "path": "/images/*.img"}'
    assert parse_line(line) == FileStatus("U", "/images/*.img")


def test_log_message() -> None:
    """The message's own name is kept, and a warning is one."""
    message = parse_line(
        '{"type": "log_message", "time": 1.0, "message": "gone", "levelname": "WARNING", "name": "borg.archiver", '
        '"msgid": "BackupFileNotFoundError"}'
    )
    assert isinstance(message, LogMessage)
    assert (message.level, message.message, message.msgid) == ("WARNING", "gone", "BackupFileNotFoundError")
    assert message.is_warning


@pytest.mark.parametrize("line", ["borg create: error: unrecognized arguments: --x", "[1]", "{", "nan"])
def test_what_is_not_json_is_an_error_line(line: str) -> None:
    """argparse and crashes write plain text; it is evidence."""
    message = parse_line(line)
    assert isinstance(message, LogMessage)
    assert message.is_warning
    assert message.message == line


@pytest.mark.parametrize("line", ["", "\n", "  \n"])
def test_empty_lines_are_nothing(line: str) -> None:
    """An empty line is no message."""
    assert parse_line(line) is None


@given(st.text(max_size=100) | st.builds(json.dumps, JSON))
@example("[" * 100_000)
@example('{"type": "log_message", "message": null}')
def test_no_line_is_too_strange(line: str) -> None:
    """Any text gives a message or nothing."""
    parse_line(line)


@given(TYPES, st.dictionaries(FIELDS, JSON, max_size=8))
@example("archive_progress", {"original_size": 1e400})
@example("file_status", {"path": ["x"]})
def test_no_field_is_too_strange(kind: str, fields: dict[str, object]) -> None:
    """A known kind with any fields gives a message whose fields have their types, or nothing."""
    message = parse_line(json.dumps({**fields, "type": kind}))
    if isinstance(message, ArchiveProgress):
        assert isinstance(message.original_size, int)
        assert isinstance(message.path, str)
    if isinstance(message, LogMessage):
        assert isinstance(message.message, str)
        assert isinstance(message.msgid, str)
