"""List archives while somebody writes to the repository.

A create holds borg's exclusive lock from its beginning to its end, and a list waits for it: a status that waits for
hours, or calls a repository that is being written to unreachable, is of no use. Past the lock one sees what was
committed before, which is true. borg's cache has a lock of its own that --bypass-lock does not pass (borg 1.4.5), so a
peek has its own cache folder; the folder of what borg knows of repositories (relocated? replayed?) stays the same.
"""

import json

from infra.borg.answers import ARCHIVE_KEYS, ArchiveInfo, archive_infos
from infra.borg.client import Repository
from infra.borg.command import run_borg
from infra.errors import BorgError, RepositoryLocked

_PATIENCE_S = 2


def peek_archives(repository: Repository) -> list[ArchiveInfo]:
    """`Repository.archives`, past the lock of a writer. Raises what that raises, RepositoryLocked aside."""
    try:
        return _list(repository, past_lock=repository.read_only)
    except RepositoryLocked:
        pass
    try:
        return _list(repository, past_lock=True)
    except BorgError:
        # The writer may have replaced an index file between two looks of ours; its next commit is far away.
        return _list(repository, past_lock=True)


def _list(repository: Repository, *, past_lock: bool) -> list[ArchiveInfo]:
    target = repository.target
    argv = ["list", "--json", "--format", ARCHIVE_KEYS]
    env = {"BORG_CACHE_DIR": str(target.base_dir / "peek")} if past_lock else {}
    option = ["--bypass-lock"] if past_lock else []
    done = run_borg(target, [*argv, *option, target.location], lock_wait=_PATIENCE_S, env=env)
    return archive_infos(json.loads(done.stdout))
