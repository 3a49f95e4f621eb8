"""From exit codes and message ids to typed errors: every documented one, and failure for what nobody documented."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.borg.failures import essence, failure
from infra.borg.messages import LogMessage
from infra.errors import (
    ArchiveExists,
    ArchiveIncomplete,
    ArchiveNotFound,
    BorgError,
    PassphraseWrong,
    RepositoryDamaged,
    RepositoryExists,
    RepositoryFull,
    RepositoryInvalid,
    RepositoryLocked,
    RepositoryNotFound,
    RepositoryUnreachable,
)

ARGV = ["borg", "create", "/srv/{borg}::a"]
LOCATION = "/srv/{borg}"
DOCUMENTED: dict[type[BorgError], tuple[int, ...]] = {
    RepositoryExists: (10, 19),
    RepositoryNotFound: (13, 18),
    RepositoryFull: (14, 20),
    RepositoryInvalid: (11, 15, 16, 21, 25, 26, 27, 48, 60, 61, 62, 63, 64, 72),
    RepositoryLocked: (70, 71, 73, 74, 75),
    RepositoryDamaged: (12, 17, 90, 91, 92, 95, 96, 97, 98, 99),
    RepositoryUnreachable: (80, 81, 87),
    PassphraseWrong: (40, 41, 42, 43, 44, 45, 50, 51, 52, 53),
    ArchiveExists: (30,),
    ArchiveNotFound: (31,),
    ArchiveIncomplete: (1, *range(100, 128)),
}
TRACEBACK = """Local Exception
Traceback (most recent call last):
  File "/usr/lib/borg/archiver.py", line 5921, in main
    exit_code = archiver.run(args)
OSError: [Errno 28] No space left on device: '/srv/borg/data/0/5'

Platform: Linux kvm1 6.1.0
sys.argv: ['/usr/bin/borg', 'create']
"""


def _error(returncode: int, *messages: LogMessage) -> BorgError:
    error = failure(ARGV, returncode, messages, location=LOCATION)
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("kind", "code"), [(kind, code) for kind, codes in DOCUMENTED.items() for code in codes], ids=str
)
def test_documented_codes(kind: type[BorgError], code: int) -> None:
    """Each documented exit code gives its error, with the location in the brief or remedy and all three voices."""
    error = _error(code, LogMessage("ERROR", "what borg says", ""))
    assert type(error) is kind
    assert error.returncode == code
    assert "what borg says" in error.evidence
    assert f"exited with {code}" in error.evidence
    assert error.remedy
    assert "{" not in (error.brief + error.remedy).replace(LOCATION, "")


def test_only_zero_is_success() -> None:
    """Exit code 0 is no error, warnings in the log or not."""
    assert failure(ARGV, 0, [LogMessage("WARNING", "x", "")], location=LOCATION) is None


@given(st.integers(-64, 255).filter(bool), st.text(max_size=50), st.text(max_size=20))
def test_every_other_code_is_failure(code: int, text: str, msgid: str) -> None:
    """An exit code that nobody documented is a failure, whatever the log says."""
    error = _error(code, LogMessage("ERROR", text, msgid))
    assert error.brief
    assert error.remedy


def test_remote_errors_are_known_by_name() -> None:
    """What fails in `borg serve` has exit code 2 and the error's name."""
    error = _error(2, LogMessage("ERROR", "gone", "Repository.DoesNotExist"))
    assert isinstance(error, RepositoryNotFound)
    assert error.msgid == "Repository.DoesNotExist"


@pytest.mark.parametrize("code", [-9, -15, 143, 130])
def test_ended_from_outside(code: int) -> None:
    """A signal is told as such."""
    assert "from outside" in _error(code).brief


def test_full_file_system_by_its_text() -> None:
    """The system's own errors reach us as a traceback; the evidence keeps what it was and drops the rest."""
    error = _error(2, LogMessage("ERROR", "Local Exception", "Exception"), LogMessage("ERROR", TRACEBACK, ""))
    assert isinstance(error, RepositoryFull)
    assert "No space left on device: '/srv/borg/data/0/5'" in error.evidence
    assert "sys.argv" not in error.evidence
    assert "archiver.run" not in error.evidence


def test_deleting_what_is_not_there() -> None:
    """delete calls it a warning; for us it is an archive that was not found."""
    error = _error(1, LogMessage("WARNING", "Archive vm.x@y not found (1/1).", ""))
    assert isinstance(error, ArchiveNotFound)


@given(st.text(max_size=200))
def test_essence_of_any_text(text: str) -> None:
    """Any message has an essence that is no longer than the message."""
    assert len(essence(text)) <= len(text)


def test_only_locks_and_connections_are_transient() -> None:
    """Only what may pass by itself is tried again."""
    transient = {kind for kind in DOCUMENTED if _error(DOCUMENTED[kind][0]).transient}
    assert transient == {RepositoryLocked, RepositoryUnreachable}


def test_remedies_of_what_borg_remembers_name_its_folder() -> None:
    """What vmborg's borg remembers is not what root's borg remembers: the calls in remedies are for the former."""
    for code in (62, 70):
        error = failure(ARGV, code, [], location=LOCATION, base_dir="/state dir/borg")
        assert error is not None
        assert "BORG_BASE_DIR='/state dir/borg' borg " in error.remedy
    plain = failure(ARGV, 60, [], location=LOCATION, base_dir="/x")
    assert plain is not None
    assert "not encrypted" in plain.brief
