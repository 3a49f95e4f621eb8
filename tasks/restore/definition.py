"""The archived definition, made to fit its new place and asked what it reaches for."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.hypervisor.chain_xml import Chain, with_chains
from infra.hypervisor.restore_dangers import TrustFacts
from infra.hypervisor.restore_trust import check_trust
from infra.hypervisor.restore_xml import Rewritten, rewrite
from tasks.restore.host import missing_sources
from tasks.restore.model import Mode, Plan
from tasks.restore.plan import rewrite_plan


@dataclass(frozen=True, slots=True)
class Vouched:
    """What this host vouches for, and what the administrator let through."""

    emulators: frozenset[str]
    current_xml: str = ""  # of the domain with the archived UUID; "" when there is none
    allow: frozenset[str] = frozenset()


def fitting_definition(
    xml: str, plan: Plan, paths: Mapping[str, str], vouched: Vouched, *, chains: Mapping[str, Chain] | None = None
) -> Rewritten:
    """The definition with these paths by archive path, and its warnings.

    `chains` put disks on images of ours, by target. Raises UnsafeArchive for what it must not bring along.
    """
    missing = missing_sources(xml, covered={chain.target for chain in plan.chains})
    result = rewrite(xml, rewrite_plan(plan, paths=paths, missing_media=missing))
    made = with_chains(result.xml, chains) if chains else result.xml
    placed = plan.found_at(paths).union(*(chain.paths for chain in (chains or {}).values()))
    facts = TrustFacts(
        emulators=vouched.emulators,
        placed=placed,
        current_xml=vouched.current_xml,
        copy=plan.mode is not Mode.IN_PLACE,
    )
    check_trust(made, facts, allow=vouched.allow)
    return Rewritten(made, result.warnings)
