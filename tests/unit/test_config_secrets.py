"""Secrets come from where the configuration says, and from nowhere that everybody can read."""

import logging
from pathlib import Path

import pytest

from infra.config.secret_ref import SecretRef
from infra.config.secrets import resolve
from infra.errors import ConfigError

SECRET = "correct horse ünï"


def _file(path: Path, content: bytes | None = None, *, mode: int = 0o600) -> SecretRef:
    path.write_bytes(SECRET.encode() + b"\n" if content is None else content)
    path.chmod(mode)
    return SecretRef(file=path)


def test_each_reference_gives_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a command, a variable and a systemd credential each give the text without its last newline."""
    reference = _file(tmp_path / "passphrase")
    monkeypatch.setenv("THE_SECRET", SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    references = [
        reference,
        SecretRef(command=("cat", str(tmp_path / "passphrase"))),
        SecretRef(env="THE_SECRET"),
        SecretRef(credential="passphrase"),
    ]
    assert [resolve(each) for each in references] == [SECRET] * 4


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a "), (b"a\nb\n", "a\nb")],
)
def test_only_one_newline_is_dropped(tmp_path: Path, content: bytes, secret: str) -> None:
    """Everything but one line end belongs to the secret, blanks too."""
    assert resolve(_file(tmp_path / "f", content)) == secret


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666])
def test_a_file_that_everybody_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """A secret with permissions for others is refused with the command that repairs it."""
    with pytest.raises(ConfigError, match="everybody has access") as caught:
        resolve(_file(tmp_path / "f", mode=mode), what="the passphrase of repository 'main'")
    assert "chmod 0600" in caught.value.remedy
    assert "the passphrase of repository 'main'" in caught.value.brief


@pytest.mark.parametrize("content", [b"", b"\n", b"a\0b", b"\xff\xfe", b"x" * 70_000])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty, binary or huge file is refused without showing what it holds."""
    with pytest.raises(ConfigError) as caught:
        resolve(_file(tmp_path / "f", content))
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (SecretRef(file=Path("/nonexistent/passphrase")), "does not exist"),
        (SecretRef(file=Path("/tmp")), "not a regular file"),
        (SecretRef(env="NOT_SET_HERE"), "the environment has no NOT_SET_HERE"),
        (SecretRef(credential="x"), "CREDENTIALS_DIRECTORY is not set"),
        (SecretRef(command=("/nonexistent/program",)), "/nonexistent/program"),
        (SecretRef(command=("sh", "-c", "echo hunter2; echo why >&2; exit 3")), "exited with 3\nwhy"),
    ],
    ids=str,
)
def test_a_missing_secret_is_told_with_a_remedy(reference: SecretRef, said: str) -> None:
    """Whatever is missing is named, what to do is said, and what a failed command printed is not shown."""
    with pytest.raises(ConfigError) as caught:
        resolve(reference)
    assert said in caught.value.evidence
    assert caught.value.remedy
    assert "hunter2\n" not in str(caught.value)


def test_no_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fetching secrets logs no secret at any level."""
    caplog.set_level(logging.DEBUG)
    _file(tmp_path / "f")
    resolve(SecretRef(command=("cat", str(tmp_path / "f"))))
    assert "cat" in caplog.text
    assert SECRET not in caplog.text
