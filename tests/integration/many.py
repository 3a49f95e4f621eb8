"""Many archives in a repository, fast: one borg process writes all of them and commits once.

A `borg create` takes 0.4 s, most of it start and commit. The script below does what borg's archiver does for an empty
archive with `--timestamp` and `--comment`, and leaves out the commit after each; what it makes is borg's own format,
and borg lists, prunes and checks it like any other. It runs in a process of its own: vmborg never imports borg.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from infra.borg.client import Repository
from infra.borg.command import environment
from infra.borg.comment import render_comment
from infra.borg.names import archive_name, dump_archive_name, unfinished
from infra.process import run

_SCRIPT = """
import json, sys, time
from datetime import datetime, timezone
from borg.archive import Archive
from borg.archiver import Archiver  # it completes borg's imports
from borg.cache import Cache
from borg.helpers import Manifest
from borg.logger import setup_logging
from borg.repository import Repository

setup_logging()
archives = json.load(sys.stdin)
with Repository(sys.argv[1], exclusive=True, lock=True) as repository:
    manifest, key = Manifest.load(repository, (Manifest.Operation.WRITE,))
    write, commit = manifest.write, repository.commit
    with Cache(repository, key, manifest) as cache:
        save = cache.commit
        manifest.write = repository.commit = cache.commit = lambda *_, **__: None
        for name, when, comment, seconds in archives:
            archive = Archive(repository, key, manifest, name, cache=cache, create=True)
            archive.start_monotonic = time.monotonic() - seconds
            archive.save(comment=comment, timestamp=datetime.fromtimestamp(when, timezone.utc))
        write()
        commit(compact=False)
        cache.commit = save
        cache.commit()
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An archive to be made."""

    uuid: str
    vm: str
    when: datetime
    host: str = "kvm1"
    uncovered: str = ""
    finished: bool = True
    dumps: str = ""
    disks: str = "vda:1048576"
    seconds: float = 0

    @property
    def name(self) -> str:
        """Its name, as a backup would choose it."""
        name = archive_name(self.uuid, self.vm, self.when)
        return name if self.finished else unfinished(name)

    @property
    def comment(self) -> str:
        """Its comment, as a backup would write it."""
        facts = {"v": "1", "vm": self.vm, "uuid": self.uuid, "host": self.host, "consistency": "crash"}
        return render_comment({**facts, "disks": self.disks, "uncovered": self.uncovered, "dumps": self.dumps})


@dataclass(frozen=True, slots=True)
class WantedDump:
    """An archive of dumps to be made."""

    dump_host: str
    when: datetime
    host: str = "kvm1"
    bad: str = ""
    seconds: float = 0

    @property
    def name(self) -> str:
        """Its name, as a pull would choose it."""
        return dump_archive_name(self.dump_host, self.when)

    @property
    def comment(self) -> str:
        """Its comment, as a pull would write it."""
        facts = {"v": "1", "dump_host": self.dump_host, "host": self.host, "sources": "postgresql:1"}
        return render_comment({**facts, "size": "1048576", "bad": self.bad})


class AnyWanted(Protocol):
    """What can be made."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def comment(self) -> str:
        """Its comment."""
        ...

    @property
    def when(self) -> datetime:
        """Its time."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...


def fill(repository: Repository, wanted: Iterable[AnyWanted]) -> list[str]:
    """Make these archives; their names."""
    found = list(wanted)
    rows = [(each.name, each.when.timestamp(), each.comment, each.seconds) for each in found]
    target = repository.target
    run(
        [sys.executable, "-c", _SCRIPT, target.location],
        timeout=600,
        env=environment(target),
        secrets={"BORG_PASSPHRASE_FD": target.passphrase or ""},
        input_text=json.dumps(rows),
    )
    return [each.name for each in found]
