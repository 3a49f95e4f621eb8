"""Everything that dead runs and commands left on this host, put right: domains, drills, views of archives."""

from infra.config.models import Config
from tasks.drills.under_way import take_away_dead
from tasks.recovery import Recovery, recover_domains
from tasks.views.recover import recover_views


def recover_all(config: Config, *, only: str | None = None) -> list[Recovery]:
    """Guests on overlays first, then what drills and views made; of one VM alone, if `only` is its name or UUID.

    What fails is told in the Recovery. Raises HypervisorUnreachable, and JournalError if an entry cannot be read, after
    all others were dealt with.
    """
    try:
        domains = recover_domains(config, only=only)
    finally:
        others = [*_drills(config, only), *recover_views(config, only=only)]
    return [*domains, *others]


def _drills(config: Config, only: str | None) -> list[Recovery]:
    return [
        Recovery(each.drill.uuid, f"drill of {each.drill.vm}", each.actions, each.error)
        for each in take_away_dead(config, only=only)
        if not each.busy
    ]
