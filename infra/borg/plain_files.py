"""Archives of ordinary files: dumps, which grow and shift, where a VM's images change in place.

A rolling chunker finds what is the same although it moved. Its chunks are of 128 KiB on average, where borg's default
is 2 MiB: a dump changes in many places, and each place costs a chunk (docs/adr/0015). A file counts as unchanged by its
mtime: what a tree takes over from the last one is a hard link, and to link a file changes its ctime.
"""

from typing import IO

from infra.borg.answers import CreateResult, CreateWatch, create_result
from infra.borg.client import CHECKPOINT_INTERVAL_S, CONTENT_ONLY, Repository
from infra.borg.command import run_borg

_CHUNKER = "buzhash,15,21,17,4095"


def create_files(
    repository: Repository,
    archive: str,
    path: str,
    *,
    comment: str,
    files_cache_suffix: str,
    timeout: float | None = None,
) -> CreateResult:
    """Store everything below `path`; `timeout` in seconds beside waiting for a lock.

    Raises ArchiveIncomplete for every warning, RepositoryUnreachable at the end of `timeout`, and borg's typed errors.
    """
    watch = CreateWatch(None)
    done = run_borg(
        repository.target,
        [
            *("create", "--json", "--list", "--filter", "AMUCE", "--files-cache", "mtime,size,inode"),
            *("--files-changed", "mtime", *CONTENT_ONLY),
            *("--compression", repository.compression, "--comment", comment, "--chunker-params", _CHUNKER),
            *("--checkpoint-interval", str(CHECKPOINT_INTERVAL_S)),
            *(f"{repository.location}::{archive}", "--", path),
        ],
        listener=watch,
        env={"BORG_FILES_CACHE_SUFFIX": files_cache_suffix},
        timeout=timeout,
    )
    repository.seconds += done.seconds
    return create_result(done, watch)


def export_files(repository: Repository, archive: str, path: str, output: IO[bytes]) -> None:
    """Write everything below `path` of an archive as a tar stream. Raises borg's typed errors."""
    argv = ["export-tar", f"{repository.location}::{archive}", "-", f"pp:{path}"]
    repository.seconds += run_borg(repository.target, argv, output=output).seconds
