"""The way from a VM's name to an open view of one of its archives."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from infra.borg.client import Repository
from infra.config.models import Config
from infra.errors import HypervisorUnreachable
from infra.hypervisor.connection import Hypervisor
from infra.journal.views import OpenView, ViewJournal
from tasks.restore.archive import LATEST, Opened, open_archive
from tasks.restore.find import find_archive
from tasks.restore.job import Request
from tasks.restore.model import Mode, Wish
from tasks.views.view import PLACES, close_view, show_archive, work_folder

Say = Callable[[str], None]
Close = Callable[[OpenView, ViewJournal], object]


@dataclass(frozen=True, slots=True)
class Chosen:
    """An archive whose metadata was read, and the entry of the view that it will be shown by."""

    repository: Repository
    opened: Opened
    entry: OpenView
    journal: ViewJournal

    @property
    def work(self) -> Path:
        """The view's private folder."""
        return work_folder(self.entry, self.journal)


@contextmanager
def chosen_archive(
    config: Config,
    vm: str,
    *,
    archive: str = LATEST,
    repository: str = "",
    say: Say = lambda _text: None,
    close: Close = close_view,
    show: tuple[int, int] | None = None,
) -> Generator[Chosen]:
    """Find the archive and read what it says of itself, and hold its view for the block.

    With `show`, a user and a group, the archive is mounted for them meanwhile, and `open_view` finds it there: nothing
    of it is looked at through the mount before its items were. When the block fails all that was made is taken away, by
    `close`. Raises what `find_archive` and `open_archive` do, and `open_view`.
    """
    journal = ViewJournal(config.state.views)
    request = Request(vm, Wish(Mode.FILES), archive, repository)
    with ExitStack() as stack:
        found = find_archive(config, request, _libvirt(config, stack), say=say)
        number = uuid4().hex[:12]
        entry = OpenView(
            number=number,
            vm=vm,
            archive=found.archive,
            repository=found.repository.name,
            started=datetime.now(UTC),
            place=str(PLACES / number),
        )
        stack.enter_context(journal.hold(number))
        journal.write(entry)
        work = work_folder(entry, journal)
        beside = ThreadPoolExecutor(1)
        try:
            work.mkdir(mode=0o700)
            mounting = beside.submit(show_archive, found.repository, entry, journal, owner=show) if show else None
            opened = open_archive(found.repository, found.archive, work)
            if mounting is not None:
                mounting.result()
            yield Chosen(found.repository, opened, entry, journal)
        except BaseException:
            beside.shutdown()  # what is being mounted has to be there when it is taken away
            close(journal.read(number) or entry, journal)
            raise


def _libvirt(config: Config, stack: ExitStack) -> Hypervisor | None:
    """Names and UUIDs of this host's domains help to find the archive; a host without libvirt will do."""
    try:
        return stack.enter_context(Hypervisor.open(config.hypervisor.uri))
    except HypervisorUnreachable:
        return None
