"""Archives can be listed while somebody writes to their repository."""

import os
import time
from pathlib import Path

import pytest

from infra.borg.client import Repository
from infra.borg.command import binary, environment
from infra.borg.peek import peek_archives
from infra.errors import PassphraseWrong, RepositoryLocked, RepositoryNotFound
from infra.process import spawn

pytestmark = pytest.mark.integration


def _repository(folder: Path, *, passphrase: str = "right", location: str = "repository") -> Repository:  # noqa: S107
    return Repository(
        name="main",
        location=str(folder / location),
        passphrase=passphrase,
        encryption="repokey-blake2",
        compression="lz4",
        base_dir=folder / "state" / "borg",
        lock_wait=1,
    )


def test_a_list_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    """While a create holds the locks what was there before is listed; once it has ended, its archive too."""
    repository = _repository(tmp_path)
    repository.init()
    (tmp_path / "file").write_text("content")
    repository.create("first", [str(tmp_path / "file")], comment="v=1 vm=a%20b", files_cache_suffix="x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    argv = [binary(), "create", "--read-special", f"{repository.location}::second", str(pipe)]
    secrets = {"BORG_PASSPHRASE_FD": "right"}
    with spawn(argv, env=environment(repository.target), secrets=secrets) as writer:
        _wait_for_lock(repository)
        seen = peek_archives(_repository(tmp_path))
        assert [(each.name, each.comment) for each in seen] == [("first", {"v": "1", "vm": "a b"})]
        pipe.write_text("content")  # lets it end
        assert writer.wait(60) == 0
    assert [each.name for each in peek_archives(repository)] == ["first", "second"]


def _wait_for_lock(repository: Repository) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            repository.archives()
        except RepositoryLocked:
            return
    raise AssertionError("the writer never took the lock")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    """A missing repository and a wrong passphrase are told as such."""
    _repository(tmp_path).init()
    with pytest.raises(PassphraseWrong):
        peek_archives(_repository(tmp_path, passphrase="wrong"))
    with pytest.raises(RepositoryNotFound):
        peek_archives(_repository(tmp_path, location="elsewhere"))
