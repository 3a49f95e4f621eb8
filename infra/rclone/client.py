"""A folder on a remote, and what can be asked of rclone about it: a method a command.

Every method raises CloudError's subtypes, ConfigError and CommandNotFound.
"""

import json
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors_upkeep import RemoteGone
from infra.rclone.command import Ended, OnTransfer, Place, run_rclone
from infra.rclone.failures import NOT_FOUND, failure

_DIFFERENT = 1  # `rclone check` found differences, or could not look
_MARKS = {"=": "same", "*": "differs", "+": "missing there", "-": "missing here", "!": "unread"}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a remote can do."""

    kind: str  # s3, sftp, crypt, ...
    hashes: tuple[str, ...]  # none: only sizes and times can be compared without a download


class RemoteFolder:
    """A folder of a remote. rclone is started anew for each call; paths are relative to the folder."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def at(self, path: str) -> str:
        """A path as rclone wants it."""
        return f"{self.place.remote}/{path}" if path else self.place.remote

    def abilities(self) -> Abilities:
        """What this remote can do."""
        found: dict[str, Any] = json.loads(run_rclone(self.place, ["backend", "features", self.place.remote]).stdout)
        return Abilities(str(found["Name"]), tuple(found.get("Hashes") or ()))

    def files(self, path: str = "") -> dict[str, int]:
        """Every file below a folder with its size in bytes; none when the folder is not there."""
        listing = self._list(path, "--files-only", "--recursive", "--fast-list")
        return {str(each["Path"]): int(each["Size"]) for each in listing}

    def folders(self, path: str) -> list[str]:
        """The folders in a folder, by name; none when it is not there."""
        return sorted(str(each["Name"]) for each in self._list(path, "--dirs-only"))

    def _list(self, path: str, *options: str) -> list[dict[str, Any]]:
        argv = ["lsjson", "--no-modtime", "--no-mimetype", *options, self.at(path)]
        done = run_rclone(self.place, argv, expected=(0, *NOT_FOUND))
        return json.loads(done.stdout) if done.code == 0 else []

    def read(self, path: str) -> str:
        """The content of a small text file. Raises RemoteGone when it is not there: S3 has nothing to say then."""
        done = run_rclone(self.place, ["cat", self.at(path)], expected=(0, *NOT_FOUND))
        if done.code != 0 or not done.stdout:
            raise RemoteGone(
                f"{self.at(path)} is not there.",
                evidence="\n".join(done.said) or "rclone cat prints nothing",
                remedy="Find out who deleted it; `vmborg sync NAME --start-over` makes a new copy beside what is left.",
            )
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a small text file."""
        run_rclone(self.place, ["rcat", self.at(path)], input_text=text)

    def sync(
        self, source: Path, path: str, *, backup: str, options: Sequence[str], on_transfer: OnTransfer | None = None
    ) -> None:
        """Make a folder equal to a local one; what is replaced or deleted there goes to the folder `backup`.

        rclone deletes at the end, and not at all after an error (rclone docs: sync).
        """
        argv = ["sync", str(source), self.at(path), "--backup-dir", self.at(backup), *options]
        run_rclone(self.place, argv, on_transfer=on_transfer)

    def fetch(self, path: str, names: Iterable[str], target: Path, on_transfer: OnTransfer | None = None) -> None:
        """Copy these files of a folder below a local one."""
        with _names_file(names) as listed:
            argv = ["copy", self.at(path), str(target), "--files-from-raw", listed, "--no-traverse"]
            run_rclone(self.place, argv, on_transfer=on_transfer)

    def compare(
        self, source: Path, path: str, names: Iterable[str], *, way: str, on_transfer: OnTransfer | None = None
    ) -> dict[str, str]:
        """What is not the same in these files here and there: `differs`, `missing there`, `missing here`, `unread`.

        `way` is hash (of a kind that the remote has), download, or cryptcheck (crypt over a remote with hashes).
        """
        command = "cryptcheck" if way == "cryptcheck" else "check"
        with _names_file(names) as listed:
            argv = [command, str(source), self.at(path), "--files-from-raw", listed, "--combined", "-"]
            argv += ["--download"] if way == "download" else []
            done = run_rclone(self.place, argv, expected=(0, _DIFFERENT), on_transfer=on_transfer)
        return _differences(done, self.place)

    def purge(self, path: str) -> None:
        """Delete a folder with everything in it; one that is not there is gone already."""
        run_rclone(self.place, ["purge", self.at(path)], expected=(0, *NOT_FOUND))

    def delete_file(self, path: str) -> None:
        """Delete one file; one that is not there is gone already."""
        run_rclone(self.place, ["deletefile", self.at(path)], expected=(0, *NOT_FOUND))


def local_hashes(place: Place, folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of these files of a local folder."""
    with _names_file(names) as listed:
        argv = ["hashsum", "sha256", str(folder), "--files-from-raw", listed]
        done = run_rclone(place, argv)
    pairs = (line.partition("  ") for line in done.stdout.splitlines())
    return {name: digest for digest, _, name in pairs if name}


def _differences(done: Ended, place: Place) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        mark, _, name = line.partition(" ")
        if mark in _MARKS and name:
            found[name] = _MARKS[mark]
    if done.code != 0 and all(each == "same" for each in found.values()):
        raise failure(["rclone", "check"], done.code, done.said, remote=place.remote)
    return {name: how for name, how in found.items() if how != "same"}


@contextmanager
def _names_file(names: Iterable[str]) -> Generator[str]:
    with tempfile.NamedTemporaryFile("w", prefix="vmborg-names-", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)
        file.flush()
        yield file.name
