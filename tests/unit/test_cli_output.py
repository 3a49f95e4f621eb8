"""What verbs write: one JSON document or text for people, and nothing that could fool a terminal."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.cli.output import Output
from deployments.cli.words import duration, moment, printable, size
from infra.errors import DomainNotFound
from infra.model import Consistency, PutBackReport

ERROR = DomainNotFound("No 'wbe'.", evidence="virsh list\nweb", remedy="Did you mean 'web'?")


def _output(*, as_json: bool = False) -> tuple[Output, io.StringIO, io.StringIO]:
    stdout, stderr = io.StringIO(), io.StringIO()
    return Output(json=as_json, stdout=stdout, stderr=stderr), stdout, stderr


def test_json_is_the_only_thing_on_stdout() -> None:
    """With --json text, tables and bars leave stdout alone; the document stands there alone."""
    output, stdout, stderr = _output(as_json=True)
    output.line("text")
    output.table(("a",), [("b",)])
    with output.progress("copy", 10) as bar:
        bar.update(5)
    output.note("a note")
    output.document({"ok": True})
    assert json.loads(stdout.getvalue()) == {"ok": True}
    assert stderr.getvalue() == "a note\n"


def test_without_json_no_document() -> None:
    """Without --json a document is not written, so that verbs need not ask."""
    output, stdout, _ = _output()
    output.document({"ok": True})
    output.line("text")
    assert stdout.getvalue() == "text\n"


def test_two_documents_are_a_bug() -> None:
    """A second document is refused, for it would make the first unreadable."""
    output, _, _ = _output(as_json=True)
    output.document({})
    with pytest.raises(AssertionError):
        output.document({})


def test_an_error_has_three_voices() -> None:
    """What failed, the evidence and what to do stand on stderr, and with --json in the document too."""
    output, stdout, stderr = _output(as_json=True)
    output.error(ERROR)
    assert stderr.getvalue() == "Error: No 'wbe'.\n  virsh list\n  web\nWhat to do: Did you mean 'web'?\n"
    assert json.loads(stdout.getvalue()) == {
        "error": {
            "type": "DomainNotFound",
            "brief": ERROR.brief,
            "evidence": ERROR.evidence,
            "remedy": ERROR.remedy,
        }
    }


def test_an_error_after_the_document_stays_on_stderr() -> None:
    """stdout holds one document even when something fails after it."""
    output, stdout, stderr = _output(as_json=True)
    output.document({"ok": True})
    output.error(ERROR)
    assert json.loads(stdout.getvalue()) == {"ok": True}
    assert "No 'wbe'." in stderr.getvalue()


def test_documents_know_our_types() -> None:
    """Times, durations, paths, enums and dataclasses have a plain form."""
    output, stdout, _ = _output(as_json=True)
    output.document(
        {
            "time": datetime(2026, 11, 22, 3, tzinfo=UTC),
            "age": timedelta(hours=1),
            "path": Path("/x"),
            "consistency": Consistency.AGENT,
            "report": PutBackReport("u", "n", ("done",)),
        }
    )
    assert json.loads(stdout.getvalue()) == {
        "time": "2026-11-22T03:00:00Z",
        "age": 3600.0,
        "path": "/x",
        "consistency": "agent",
        "report": {"uuid": "u", "name": "n", "actions": ["done"]},
    }


@given(st.text())
def test_any_text_is_valid_json(text: str) -> None:
    """Whatever a name holds, lone surrogates too, the document can be written as UTF-8 and read back."""
    output, stdout, _ = _output(as_json=True)
    output.document({"name": text, "file": "\udcff"})
    assert json.loads(stdout.getvalue().encode("utf-8")) == {"name": text, "file": "\udcff"}


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    """Escape sequences and text-direction marks in names are shown, not obeyed."""
    output, stdout, _ = _output()
    output.table(("VM",), [(text,)])
    assert not set(stdout.getvalue()) & set("\x1b\x07\x08\r\u202e\u200b\x9b")
    assert printable("a\x1b[31mb\u202e") == "a\\x1b[31mb\\u202e"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_no_markup_and_no_controls_of_ours() -> None:
    """On a terminal too, names are text: rich's markup in them is shown, control characters are escaped."""
    stdout, stderr = _Terminal(), _Terminal()
    output = Output(stdout=stdout, stderr=stderr)
    output.table(("VM", "status"), [("[red]web[/red]\x1b]0;x\x07", "critical")])
    output.verdict("critical", "[bold]web\x1b[2J")
    with output.progress("[i]web\x1b[2J", 100) as bar:
        bar.update(50, text="[b]web")
    said = stdout.getvalue() + stderr.getvalue()
    assert [part for part in ("[red]web[/red]\\x1b]0;x\\x07", "[bold]web\\x1b[2J", "[b]web") if part not in said] == []
    assert "\x1b]0;" not in said
    assert "\x1b[2J" not in said


def test_plain_tables_are_aligned() -> None:
    """Elsewhere than on a terminal columns are aligned by what is seen, numbers to the right."""
    output, stdout, _ = _output()
    output.table(("VM", "size"), [("web", "5 B"), ("日本", "10.0 GiB")], right=("size",))
    assert stdout.getvalue().splitlines() == ["VM        size", "web        5 B", "日本  10.0 GiB"]


@pytest.mark.parametrize(
    ("width", "shown"), [(60, ["VM", "size", "took", "what"]), (26, ["VM", "size", "what"]), (15, ["VM", "what"])]
)
def test_a_narrow_terminal_is_shown_less(monkeypatch: pytest.MonkeyPatch, width: int, shown: list[str]) -> None:
    """Columns that can be done without go one after the other until the table fits; the others always stay."""
    monkeypatch.setenv("COLUMNS", str(width))
    terminal = _Terminal()
    row = ("web", "60.0 GiB", "2m 05s", "backed up")
    Output(stdout=terminal).table(("VM", "size", "took", "what"), [row], less=("took", "size"))
    heading = terminal.getvalue().splitlines()[0]
    assert [name for name in ("VM", "size", "took", "what") if name in heading] == shown


def test_sizes_times_and_ages_are_short() -> None:
    """Sizes, times and ages are written as people read them."""
    assert [size(count) for count in (0, 1023, 1536, 5 * 1024**3)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    spans = [timedelta(seconds=45), timedelta(minutes=12), timedelta(hours=3, minutes=20), timedelta(days=2, hours=4)]
    assert [duration(span) for span in spans] == ["45s", "12m", "3h 20m", "2d 4h"]
    assert moment(datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)) == "2026-11-22 03:04:05Z"
    assert moment(None) == "never"
