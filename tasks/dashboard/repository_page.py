"""The page of one repository: capacity, growth, days left, what is in it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from infra.config.models import RepositoryConfig
from tasks.catalogue import VmArchive
from tasks.dashboard.markdown import code, escaped, facts, table, whole
from tasks.dashboard.plot import Panel, image
from tasks.dumps.catalogue import DumpArchive
from tasks.policy import slug
from tasks.space import Sample, days_left, growth
from tasks.units import moment, size

_PLOTTED = 60
_COLUMNS = ("VM", "archives", "oldest", "newest", "size", "new data")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a repository holds, as this host knows it."""

    vms: Sequence[VmArchive] = ()
    dumps: Sequence[DumpArchive] = ()
    new_data: Mapping[str, int] = field(default_factory=dict[str, int])  # bytes, by archive; of this host's backups
    problem: str = ""  # why it could not be read


def repository_key(host: str, name: str) -> str:
    """The page's key: two hosts may each have a repository of this name."""
    return slug(f"repository-{host}-{name}")


def repository_page(
    host: str,
    name: str,
    settings: RepositoryConfig,
    contents: Contents,
    *,
    kept: Sequence[Sample],
    now: datetime,
) -> str:
    """The page; `kept` are the samples of its space, oldest first."""
    parts = [f"# Repository {escaped(name)} of {escaped(host)}", f"{headline(contents, kept)} Looked at {moment(now)}."]
    parts.append(facts(_facts(settings, contents, kept)))
    if len(kept) > 1:
        parts += ["## Growth", _plot(kept[-_PLOTTED:])]
    if contents.vms:
        parts += ["## VMs in it", _vms(contents)]
    return "\n\n".join(parts) + "\n"


def headline(contents: Contents, kept: Sequence[Sample]) -> str:
    """The one sentence for whoever has no time."""
    if contents.problem:
        return f"**✖ It cannot be read:** {escaped(contents.problem)}"
    if not kept:
        return "It is on another machine: its size is known after the next backup."
    if not kept[-1].total:
        return "It is on another machine: `capacity` in the configuration says how much it may hold."
    left = days_left(kept)
    said = f"**{_days(left)} left** at the pace of the last 30 days" if left is not None else _why_not(kept)
    return f"{said}, {size(kept[-1].free)} free."


def _why_not(kept: Sequence[Sample]) -> str:
    return "**Days left: not known before tomorrow**" if growth(kept) is None else "**It does not grow**"


def _days(left: float) -> str:
    return f"{left:.0f} days" if left < 3650 else "more than 10 years"  # noqa: PLR2004


def _facts(settings: RepositoryConfig, contents: Contents, kept: Sequence[Sample]) -> dict[str, str]:
    archives: list[VmArchive | DumpArchive] = [*contents.vms, *contents.dumps]
    times = sorted(each.time for each in archives)
    found = {"Location": code(settings.location), "Encryption": settings.encryption}
    if kept:
        last, pace = kept[-1], growth(kept)
        percent = 100 * last.used // max(last.total, 1)
        total = "Capacity" if settings.is_remote else "File system"
        found |= {
            "Its size": size(last.size),
            total: f"{size(last.total)}, {percent} % used" if last.total else "",
            "Growth": f"{size(pace)} a day, {size(30 * pace)} a month" if pace is not None else "not known yet",
        }
    return found | {
        "Archives": f"{len(contents.vms)} of VMs, {len(contents.dumps)} of dumps",
        "Unfinished": ", ".join(code(each.archive) for each in archives if not each.finished),
        "Oldest and newest": f"{moment(times[0])}, {moment(times[-1])}" if times else "",
    }


def _plot(kept: Sequence[Sample]) -> str:
    panels = [Panel("Size of the repository", [each.size for each in kept], "#10b981", size)]
    return image(panels, f"{kept[0].time:%Y-%m-%d}", f"{kept[-1].time:%Y-%m-%d}", "Size of the repository by day")


def _vms(contents: Contents) -> str:
    """A row a VM, the one with the most new data first."""
    good = [each for each in contents.vms if each.finished]
    of: dict[str, list[VmArchive]] = {}
    for each in good:
        of.setdefault(each.uuid, []).append(each)
    stored = {uuid: sum(contents.new_data.get(each.archive, 0) for each in found) for uuid, found in of.items()}
    rows = [
        {
            "VM": escaped(found[-1].vm),
            "archives": str(len(found)),
            "oldest": whole(moment(found[0].time)),
            "newest": whole(moment(found[-1].time)),
            "size": whole(size(found[-1].size)),
            "new data": whole(size(stored[uuid])) if stored[uuid] else "",
        }
        for uuid, found in sorted(of.items(), key=lambda item: (-stored[item[0]], item[1][-1].vm))
    ]
    said = "New data is what backups of this host added; the last 60 of each VM are counted."
    return table(_COLUMNS, rows, right=("archives", "size", "new data")) + f"\n\n{said}"
