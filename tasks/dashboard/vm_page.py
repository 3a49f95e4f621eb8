"""The page of one VM: what is safe of it, its history and plots, and how it is brought back. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from tasks.catalogue import VmArchive
from tasks.dashboard.markdown import code, escaped, facts, mark, table, visible, whole
from tasks.dashboard.plot import Panel, image
from tasks.health import vm_argument
from tasks.policy import vm_key
from tasks.status import VmStatus
from tasks.units import duration, moment, size

_PLOTTED = 60
_LISTED = 30
_COLUMNS = ("archive of", "consistency", "frozen", "size", "new data", "took")
_RIGHT = ("frozen", "size", "new data", "took")


def page_key(name: str, uuid: str) -> str:
    """The page's key."""
    return vm_key("vm", name, uuid)


def vm_page(
    host: str, vm: VmStatus, archives: Sequence[VmArchive], new_data: Mapping[str, int], *, now: datetime
) -> str:
    """The page; `archives` oldest first, `new_data` in bytes by archive."""
    good = [each for each in archives if each.finished]
    parts = [f"# {escaped(vm.vm)}", f"{vm_verdict(vm)}, looked at {moment(now)}"]
    parts += [escaped(vm.remedy)] if vm.remedy else []
    parts.append(_summary(host, vm, good))
    if good:
        parts += ["## History", _plot(good[-_PLOTTED:], new_data), _history(good, new_data)]
        parts += ["## Bring it back", _restore(vm, good)]
    return "\n\n".join(parts) + "\n"


def vm_verdict(vm: VmStatus) -> str:
    """The verdict in one line."""
    return f"**{mark(vm.health)}**: {escaped(vm.text)}"


def _summary(host: str, vm: VmStatus, good: Sequence[VmArchive]) -> str:
    last = good[-1] if good else None
    disks = ", ".join(f"{escaped(target)} {size(count)}" for target, count in last.disks.items()) if last else ""
    return facts(
        {
            "Hypervisor": escaped(host),
            "Last good archive": f"{code(vm.archive)} in {code(vm.repository)}" if vm.archive else "never",
            "Disks in it": disks,
            "Not covered": escaped(", ".join(vm.uncovered)),
            "Consistency": vm.consistency,
            "Objective": f"an archive every {duration(vm.objective)}" if vm.objective else "",
            "Good archives": str(len(good)),
            "Oldest": moment(good[0].time) if good else "",
            "UUID": code(vm.uuid),
        }
    )


def _plot(shown: Sequence[VmArchive], new_data: Mapping[str, int]) -> str:
    panels = [
        Panel("New data in the repository", [new_data.get(each.archive) for each in shown], "#3b82f6", size),
        Panel("Time that borg took", [each.seconds for each in shown], "#f59e0b", _seconds),
    ]
    first, last = (f"{each.time:%Y-%m-%d %H:%M}" for each in (shown[0], shown[-1]))
    return image(panels, first, last if len(shown) > 1 else "", "New data and duration of each backup")


def _history(good: Sequence[VmArchive], new_data: Mapping[str, int]) -> str:
    """The newest first."""
    shown = good[-_LISTED:]
    rows = [
        {
            "archive of": whole(moment(each.time)),
            "consistency": escaped(each.consistency),
            "frozen": whole(f"{each.frozen_ms} ms") if each.frozen_ms is not None else "",
            "size": whole(size(each.size)) if each.disks else "",
            "new data": whole(size(new_data[each.archive])) if each.archive in new_data else "",
            "took": whole(_seconds(each.seconds)),
            "not covered": escaped(", ".join(each.uncovered)),
            "repository": escaped(each.repository),
        }
        for each in reversed(shown)
    ]
    left = f"\n\nThe newest {_LISTED} of {len(good)}." if len(good) > _LISTED else ""
    more = ["not covered"] if any(each.uncovered for each in shown) else []
    more += ["repository"] if len({each.repository for each in shown}) > 1 else []
    return table((*_COLUMNS, *more), rows, right=_RIGHT) + left


def _restore(vm: VmStatus, good: Sequence[VmArchive]) -> str:
    name, copy = vm_argument(vm.vm), vm_argument(f"{vm.vm}-copy")
    commands = [f"vmborg list {name}", f"vmborg restore {name} --as {copy} --start"]
    commands += [f"vmborg restore {name} --as {copy} --archive {good[0].archive}"] if len(good) > 1 else []
    return "\n".join(f"    {visible(each)}" for each in commands)


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:  # noqa: PLR2004 - an hour
        return duration(timedelta(seconds=seconds))
    return f"{minutes}m {rest:02}s" if minutes else f"{seconds:.1f}s"
