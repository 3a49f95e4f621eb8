"""What retention would do to a repository: a plan for each of its sources, as of one moment. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from infra.config.models import Config
from infra.config.retention import Retention
from infra.retention.holds import RETIRED, Mark, held_names, mark_facts, mark_name, spent_marks
from infra.retention.plan import Decision, forget_source, keep_source, plan_source, thin_source
from infra.retention.retired import (
    RetiredPolicy,
    Sight,
    Stage,
    host_is_back,
    is_back,
    may_retire,
    may_retire_host,
    stage,
)
from infra.retention.rules import KeepRules
from tasks.catalogue import VM
from tasks.retention.sources import DUMP, Holding, SourceArchives

NO_POLICY = "no policy here"


@dataclass(frozen=True, slots=True)
class View:
    """What this host knows when it plans."""

    sight: Sight
    names: Mapping[str, str]  # the present name of each VM that libvirt knows, by UUID
    now: datetime


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source: where it stands, and the fate of each of its archives, newest first."""

    kind: str
    id: str
    name: str
    owner: str
    stage: Stage
    since: datetime | None  # gone since
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """One repository."""

    repository: str
    sources: tuple[SourcePlan, ...]
    new_marks: tuple[tuple[str, dict[str, str]], ...] = ()  # name and comment: sources that are found gone now
    undone_marks: tuple[str, ...] = ()  # retirements that are over: the source is back
    spent_marks: tuple[str, ...] = ()  # holds that have ended

    @property
    def pruned(self) -> list[str]:
        """The archives that go, each by its name."""
        return [each.archive.name for source in self.sources for each in source.decisions if not each.kept]


def plan_repository(config: Config, holding: Holding, view: View) -> Outlook:
    """The plan of every source of a repository."""
    held = held_names(holding.marks, view.now)
    sources: list[SourcePlan] = []
    new_marks: list[tuple[str, dict[str, str]]] = []
    undone: list[str] = []
    for source in holding.sources:
        marks = holding.retired(source.id)
        plan = _plan_source(config, source, marks, view=view, held=held)
        if plan.stage is Stage.ACTIVE:
            undone += [mark.archive for mark in marks]
        elif not marks:
            facts = mark_facts(RETIRED, source.id, host=view.sight.hypervisor)
            new_marks.append((mark_name(RETIRED, source.id, view.now), facts | {"source": source.name}))
        sources.append(plan)
    spent = spent_marks(holding.marks, holding.names, view.now)
    together = _recovery_points(holding, sources)
    return Outlook(holding.repository, together, tuple(new_marks), tuple(undone), tuple(spent))


def _recovery_points(holding: Holding, plans: list[SourcePlan]) -> tuple[SourcePlan, ...]:
    """An archive of dumps stays as long as that of the VM with which it makes one recovery point."""
    stays = [each.archive.name for plan in plans if plan.kind == VM for each in plan.decisions if each.kept]
    wanted = {dump: vm for vm in stays for dump in holding.companions.get(vm, ())}

    def decide(each: Decision) -> Decision:
        name = each.archive.name
        return (
            each if each.kept or name not in wanted else Decision(each.archive, kept=True, rule=f"with {wanted[name]}")
        )

    return tuple(
        replace(plan, decisions=tuple(map(decide, plan.decisions))) if plan.kind == DUMP else plan for plan in plans
    )


def _plan_source(
    config: Config, source: SourceArchives, marks: list[Mark], *, view: View, held: set[str]
) -> SourcePlan:
    where, since = _stage(config, source, marks, view)
    archives, now = source.archives, view.now
    policy = _policy(config, source, view)
    if where is Stage.RETIRED:
        decisions = keep_source(archives, "retired, in its grace")
    elif where is Stage.THINNED:
        decisions = thin_source(archives, config.retired.keep, now=now, held=held)
    elif where is Stage.FORGOTTEN:
        decisions = forget_source(archives, held=held)
    elif policy is None:
        decisions = keep_source(archives, NO_POLICY)
    else:
        decisions = plan_source(archives, keep_rules(policy), now=now, held=held)
    name = view.names.get(source.id, source.name)
    return SourcePlan(source.kind, source.id, name, source.owner, where, since, tuple(decisions))


def _policy(config: Config, source: SourceArchives, view: View) -> Retention | None:
    if source.kind == DUMP:
        host = config.dumps.hosts.get(source.name)
        return host.retention if host else None
    return config.policy(view.names.get(source.id, source.name)).retention


def _stage(config: Config, source: SourceArchives, marks: list[Mark], view: View) -> tuple[Stage, datetime | None]:
    finished = [each.time for each in source.archives if each.finished]
    if not finished or _is_back(source, view.sight):
        return Stage.ACTIVE, None
    newest = max(finished)
    # An archive newer than a mark undid it; the first mark after the newest archive tells since when it is gone.
    valid = [mark.time for mark in marks if mark.time >= newest]
    if valid:
        return stage(valid[0], newest=newest, policy=retired_policy(config), now=view.now), valid[0]
    return (Stage.RETIRED, view.now) if _is_gone(source, view.sight) else (Stage.ACTIVE, None)


def _is_back(source: SourceArchives, sight: Sight) -> bool:
    if source.kind == VM:
        return is_back(sight, source.id)
    return host_is_back(sight, host=source.name, owner=source.owner)


def _is_gone(source: SourceArchives, sight: Sight) -> bool:
    if source.kind == VM:
        return may_retire(sight, uuid=source.id, vm=source.name, owner=source.owner)
    return may_retire_host(sight, host=source.name, owner=source.owner)


def keep_rules(policy: Retention) -> KeepRules:
    """The rules of a policy."""
    names = ("within", "last", "hourly", "daily", "weekly", "monthly", "yearly")
    values: dict[str, Any] = {name: getattr(policy, name) for name in names}
    return KeepRules(**values)


def retired_policy(config: Config) -> RetiredPolicy:
    """How retired sources are thinned."""
    return RetiredPolicy(config.retired.grace, config.retired.keep, config.retired.forget_after)
