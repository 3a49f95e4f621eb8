"""One repository, and what can be asked of borg about it: a method a verb.

Every method raises BorgError's subtypes (infra/borg/failures.py) and CommandNotFound.
"""

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from infra.borg.answers import (
    ARCHIVE_KEYS,
    ArchiveInfo,
    ArchiveItem,
    CreateResult,
    CreateWatch,
    RepositoryInfo,
    archive_infos,
    create_result,
    repository_info,
    require_mode,
)
from infra.borg.command import Finished, Target, extract_target, run_borg
from infra.borg.messages import ArchiveProgress, Message, PercentProgress
from infra.borg.segments import SegmentSource
from infra.errors import RepositoryLocked, RepositoryNotFound

__all__ = ["ArchiveInfo", "ArchiveItem", "CreateResult", "Repository", "RepositoryInfo"]

BLOCK = 4 * 1024**2
CHUNKER = f"fixed,{BLOCK}"
"""Blocks of 4 MiB: images change in place, and a fixed chunker is half the work of a rolling one (borg docs:
usage/notes). Without --sparse, which cuts them from where data begins after a hole, not from the beginning of the
file: one write into that hole moves them all (docs/adr/0017-blocks-from-the-beginning.md)."""

_IMAGES = ("--filter", "AMUCE", "--chunker-params", CHUNKER)

FILES_CACHE = "ctime,size,inode"
"""What has to be as it was for a file not to be read again. While it is read, only its mtime must stay: a clone that
is started meanwhile has libvirt change the owner, and so the ctime, of a template that nobody writes to."""

_PROBE_LOCK_WAIT_S = 20
_QUERY_S = 1800.0
"""Seconds that a question may take once borg has the lock: a large chunks cache is built anew in minutes."""
_SILENT_WAIT_S = 2
_READING = ("list", "info", "extract")
_DELETED_AT_ONCE = 100  # names in one call: a call takes half a second, and arguments have a limit
CHECKPOINT_INTERVAL_S = 10 * 365 * 86400  # never: a killed run shall leave no NAME.checkpoint

# Neither stored nor brought back: plain borg restores what is stored, too.
# An immutable flag would keep an extracted image from being moved into place. Of the extended attributes the only
# ones that images have are libvirt's notes of owners and users (trusted.libvirt.security.*), true on the day of the
# backup alone: with a count of users in them a restored image does not start (libvirt, security_util.c).
CONTENT_ONLY = ("--noflags", "--noxattrs", "--noacls")


class Repository:
    """A borg repository. borg is started anew for each call."""

    def __init__(  # noqa: PLR0913 - what the configuration says of a repository
        self,
        *,
        name: str,
        location: str,
        passphrase: str | None,
        encryption: str,
        compression: str,
        base_dir: Path,
        lock_wait: int,
        remote_path: str | None = None,
        rsh: str | None = None,
    ) -> None:
        self.name = name
        self.location = location
        self.encryption = encryption
        self.compression = compression
        self.seconds = 0.0
        """Seconds spent in borg by all calls so far."""
        self.on_wait: Callable[[str], None] | None = None
        """Is told when another borg's lock has to be waited for."""
        self.only_reads = False
        """Set by whoever writes nothing: a file system that is mounted read-only will do then. Else it is an error,
        which a backup must meet before it touches a guest."""
        self.target = Target(
            location=location,
            passphrase=passphrase,
            base_dir=base_dir,
            lock_wait=lock_wait,
            remote_path=remote_path,
            rsh=rsh,
            unencrypted=encryption == "none",
        )

    def _borg(self, *arguments: str, **how: Any) -> Finished:
        if self.only_reads and arguments[0] in _READING and self.read_only:
            arguments = (arguments[0], "--bypass-lock", *arguments[1:])
        done = self._run(arguments, how)
        self.seconds += done.seconds
        return done

    def _run(self, arguments: Sequence[str], how: dict[str, Any]) -> Finished:
        """Once, or first with little patience if somebody wants to know that the lock is waited for."""
        wait: int = how.get("lock_wait") or self.target.lock_wait
        if self.on_wait is None or wait <= _SILENT_WAIT_S:
            return run_borg(self.target, arguments, **how)
        try:
            return run_borg(self.target, arguments, **dict(how, lock_wait=_SILENT_WAIT_S))
        except RepositoryLocked as error:
            who = next((f" ({line})" for line in error.evidence.splitlines() if line.startswith("held by")), "")
            self.on_wait(f"waiting for the repository {self.name!r}, which another borg uses{who}; at most {wait} s")
        return run_borg(self.target, arguments, **how)

    @property
    def read_only(self) -> bool:
        """Whether it lies on a file system of this host that nobody can write to: then there is nothing to lock."""
        try:
            return self.location.startswith("/") and bool(os.statvfs(self.location).f_flag & os.ST_RDONLY)
        except OSError:
            return False

    def _json(self, *arguments: str, **how: Any) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._borg(*arguments, **how).stdout)
        return document

    # ---------------------------------------------------------------------------------------------- repository

    def init(self) -> None:
        """Create it, its parent directories too. Raises RepositoryExists."""
        self._borg("init", "--encryption", self.encryption, "--make-parent-dirs", self.location)

    def exists(self) -> bool:
        """Whether there is a repository that our passphrase opens; False when there is none."""
        try:
            self.probe()
        except RepositoryNotFound:
            return False
        return True

    def probe(self) -> None:
        """Prove in about half a second that it is there, not locked for long, and opens as it is configured.

        Raises RepositoryInvalid when it is not encrypted and should be, or the other way round.
        """
        listing = ("list", "--json", "--last", "1", self.location)
        require_mode(
            self._json(*listing, lock_wait=_PROBE_LOCK_WAIT_S, timeout=_QUERY_S), self.location, self.encryption
        )

    def info(self) -> RepositoryInfo:
        """Identity, mode of encryption and size."""
        return repository_info(self._json("info", "--json", self.location))

    def key_export(self, path: Path) -> None:
        """Write the repository's key to `path`, readable by its owner only."""
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._borg("key", "export", self.location, str(path))

    # ------------------------------------------------------------------------------------------------- archives

    def archives(
        self, glob: str | None = None, *, lock_wait: int | None = None, to_write: bool = False
    ) -> list[ArchiveInfo]:
        """All archives or those that a shell glob matches, oldest first, with the facts of their comments.

        It proves too that the repository is there and that the passphrase opens it; with `to_write` also that it is
        encrypted as it is configured (RepositoryInvalid). `lock_wait` in seconds.
        """
        pattern = ["--glob-archives", glob] if glob is not None else []
        listing = ("list", "--json", "--format", ARCHIVE_KEYS, *pattern, self.location)
        document = self._json(*listing, lock_wait=lock_wait, timeout=_QUERY_S)
        if to_write:
            require_mode(document, self.location, self.encryption)
        return archive_infos(document)

    def items(self, archive: str, *, unique: bool = False, lock_wait: int | None = None) -> list[ArchiveItem]:
        """Every file and directory of an archive. `unique` asks for that too; it needs borg's chunks cache.

        `lock_wait` in seconds. Raises ArchiveNotFound.
        """
        keys = "{type}{path}{size}" + ("{dcsize}" if unique else "")
        listing = ("list", "--json-lines", "--format", keys, self._named(archive))
        done = self._borg(*listing, lock_wait=lock_wait, timeout=_QUERY_S)
        found = (json.loads(line) for line in done.stdout.splitlines() if line)
        return [ArchiveItem(each["path"], each["type"], each["size"], each.get("dcsize")) for each in found]

    def delete(self, names: Sequence[str], *, lock_wait: int | None = None, timeout: float = _QUERY_S) -> None:
        """Delete archives by their exact names; space is freed by a compact. Seconds.

        Raises ArchiveNotFound when one of them is not there; the others are deleted then all the same.
        """
        for start in range(0, len(names), _DELETED_AT_ONCE):
            first, *others = names[start : start + _DELETED_AT_ONCE]
            # The location alone would name the whole repository.
            self._borg("delete", self._named(first), *others, lock_wait=lock_wait, timeout=timeout)

    def rename(self, old: str, new: str, *, lock_wait: int | None = None) -> None:
        """Rename an archive; `lock_wait` in seconds. Raises ArchiveNotFound, ArchiveExists."""
        self._borg("rename", self._named(old), new, lock_wait=lock_wait, timeout=_QUERY_S)

    @property
    def _segments(self) -> Sequence[str]:
        """Where the repository's segments are (borg docs: internals, Segments), if on this host."""
        return [f"{self.location}/data"] if self.location.startswith("/") else []

    def _named(self, archive: str) -> str:
        return f"{self.location}::{archive}"

    # --------------------------------------------------------------------------------------------------- create

    def create(
        self,
        archive: str,
        paths: Sequence[str],
        *,
        comment: str,
        files_cache_suffix: str,
        read_special: bool = False,
        segments: SegmentSource | None = None,
        on_progress: Callable[[ArchiveProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> CreateResult:
        """Store `paths`, and `segments`. They are cut into fixed blocks; one of zeros, or of a hole, is stored once.

        `read_special` stores the content of block devices; without it borg stores an empty node and exits 0.
        `files_cache_suffix` gives each VM a files cache of its own: borg forgets what 20 other backups did not see.
        `stop` ends it early: the result says `stopped`, and whoever asked for it must see that no archive is left.

        Raises ArchiveIncomplete for every warning (borg keeps the archive then, without the file that it warns about).
        """
        watch = CreateWatch(on_progress)
        done = self._borg(
            *("create", "--json", "--list", "--progress", *CONTENT_ONLY, *(segments.options if segments else _IMAGES)),
            *("--files-cache", FILES_CACHE, "--files-changed", "mtime"),
            *("--compression", self.compression, "--comment", comment),
            *("--checkpoint-interval", str(CHECKPOINT_INTERVAL_S)),
            *(["--read-special"] if read_special else []),
            *(self._named(archive), "--", *paths, *([segments.path] if segments else [])),
            prefix=segments.prefix if segments else (),
            listener=watch,
            stop=stop,
            env={"BORG_FILES_CACHE_SUFFIX": files_cache_suffix},
            read_ahead=paths,
        )
        if done.stopped:
            return CreateResult(0, 0, done.seconds, done.read_bytes, stopped=True)
        return create_result(done, watch)

    # -------------------------------------------------------------------------------------------------- extract

    def extract(
        self,
        archive: str,
        paths: Sequence[str],
        directory: Path,
        *,
        on_progress: Callable[[PercentProgress], None] | None = None,
    ) -> None:
        """Extract exactly these paths (all of them without any) below `directory`; blocks of zeros become holes.

        Raises ArchiveNotFound; NoSpace; ArchiveIncomplete for every other warning, a path that is not in the archive
        among them.
        """

        def listen(message: Message) -> None:
            if on_progress is not None and isinstance(message, PercentProgress):
                on_progress(message)

        progress = ["--progress"] if on_progress is not None else []
        # pp: takes the rest as the beginning of a path, not as a pattern (borg help patterns).
        exact = [f"pp:{path}" for path in paths]
        options = ["--sparse", *CONTENT_ONLY, *progress]
        with extract_target(str(directory)):
            self._borg(
                *("extract", *options, self._named(archive), *exact),
                cwd=directory,
                listener=listen,
                read_ahead=self._segments,
            )

    def extract_to(self, archive: str, path: str, file: IO[bytes]) -> None:
        """Write the content of one file of an archive to an open file or device, holes as zeros.

        Raises ArchiveNotFound; NoSpace; ArchiveIncomplete when the archive has no such path.
        """
        with extract_target(str(file.name)):
            named = self._named(archive)
            self._borg("extract", "--stdout", named, f"pp:{path}", output=file, read_ahead=self._segments)

    def extract_stdout(self, archive: str, path: str) -> str:
        """The content of one small text file of an archive."""
        return self._borg("extract", "--stdout", self._named(archive), f"pp:{path}").stdout
