"""Views that dead commands, or a reboot of the host, left behind: taken away, or put in order again."""

from infra.config.models import Config
from infra.errors import DomainBusy, VmborgError
from infra.journal.views import OpenView, ViewJournal
from tasks.boot.recover import recover_booted
from tasks.recovery import Recovery
from tasks.views.view import close_view, is_alive


def recover_views(config: Config, *, only: str | None = None) -> list[Recovery]:
    """Look at every view that no command works on; those of one VM, if `only` is its name.

    What stands and works is left alone and not told. Raises JournalError if an entry cannot be read, after all others
    were dealt with.
    """
    journal = ViewJournal(config.state.views)
    found = journal.entries()
    recovered: list[Recovery] = []
    for view in found.views:
        name = view.boot.name if view.boot else view.vm
        if only not in {None, view.vm, name}:
            continue
        try:
            with journal.hold(view.number):
                current = journal.read(view.number)
                done = [] if current is None else _recovered(config, current, journal)
        except DomainBusy:
            continue  # a command works on it
        except (VmborgError, OSError) as error:
            recovered.append(Recovery(view.number, name, error=str(error)))
            continue
        if done:
            recovered.append(Recovery(view.number, name, tuple(done), closed=True))
    for problem in found.problems:
        if only is None:
            raise problem
    return recovered


def _recovered(config: Config, view: OpenView, journal: ViewJournal) -> list[str]:
    if view.boot is not None:
        return recover_booted(config, view, view.boot, journal)
    if view.standing and is_alive(view):
        return []
    return [*close_view(view, journal), f"the view of {view.archive} is gone"]
