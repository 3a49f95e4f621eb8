"""The page of the whole fleet, put together from the tables that each hypervisor leaves: am I safe? Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.dashboard.cells import RIGHT, Line
from tasks.dashboard.markdown import escaped, link, mark, table, whole
from tasks.dashboard.vm_page import page_key
from tasks.health import Finding, Health, worst
from tasks.policy import slug
from tasks.units import duration, moment

FLEET = "fleet"
"""The key of the page, and the beginning of the keys of its tables."""
_WHOLE = 60
"""So many sources are all shown; of more, only those that are not well."""
_SHOWN = 100
_COLUMNS = {
    "status": " ",
    "VM": "VM",
    "host": "host",
    "last good archive": "last good archive",
    "age": "age",
    "objective": "objec\u00adtive",
    "size": "size",
    "new data": "new data",
    "took": "took",
    "consistency": "consis\u00adtency",
    "uncovered": "uncov\u00adered",
    "proven": "proven",
}
"""Cells that are shown, and their headings with soft hyphens: beside the table Prefect needs room for the run."""
_GRAVE = (Health.CRITICAL, Health.UNKNOWN, Health.WARNING)

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HostTable:
    """What one hypervisor said last."""

    host: str
    time: datetime
    rows: Sequence[Row]


def host_key(host: str) -> str:
    """The key of a hypervisor's table."""
    return slug(f"{FLEET}-{host}")


def rows(host: str, lines: Sequence[Line], problems: Sequence[Finding]) -> list[dict[str, str]]:
    """The rows of a hypervisor's table: its sources, then what concerns no single one."""
    found = [_source(host, line) for line in lines]
    return found + [
        {
            "status": each.health.value,
            "VM": "",
            "host": host,
            "what": f"{each.subject}: {each.text} {each.remedy}".strip(),
        }
        for each in problems
    ]


def _source(host: str, line: Line) -> dict[str, str]:
    cells = dict(line.cells)
    head = {"status": cells.pop("status"), "VM": cells.pop("VM"), "host": host}
    return {**head, **cells, "uuid": line.vm.uuid if line.vm is not None else ""}


def _is_source(row: Row) -> bool:
    return bool(row.get("VM"))


def aged(tables: Sequence[HostTable], *, now: datetime, silent: timedelta) -> list[HostTable]:
    """In order of their hosts; one that has said nothing for longer than `silent` is not taken for safe."""
    return [_aged(each, now, silent) for each in sorted(tables, key=lambda each: each.host)]


def listed(tables: Sequence[HostTable]) -> list[Row]:
    """The sources that the page shows one by one."""
    sources = [row for each in tables for row in each.rows if _is_source(row)]
    return sources if len(sources) <= _WHOLE else [row for row in sources if row["status"] != Health.OK][:_SHOWN]


def page_of(row: Row) -> str:
    """The key of the page of a row's VM; "" if it can have none."""
    has_page = row.get("uuid") and row.get("last good archive") != moment(None)
    return page_key(row["VM"], row["uuid"]) if has_page else ""


def fleet_page(tables: Sequence[HostTable], pages: Mapping[str, str], *, now: datetime) -> str:
    """The page; `pages` are the ids of other artifacts by their keys."""
    everything = [row for each in tables for row in each.rows]
    bad = [row for level in _GRAVE for row in everything if row["status"] == level]
    parts = [f"# {verdict(tables)}", f"Looked at {moment(now)}. All times are UTC."]
    if bad:
        parts += ["## What to look at", "\n".join(_complaint(row) for row in bad[:_SHOWN])]
    shown = listed(tables)
    if shown:
        whole_fleet = len(shown) == sum(map(_is_source, everything))
        parts.append("## Every VM" if whole_fleet else f"## {len(shown)} of those that are not well")
        headings = [_COLUMNS[name] for name in RIGHT]
        parts.append(table(list(_COLUMNS.values()), [_cells(row, pages) for row in shown], right=headings))
    hosts = [_host(each, pages) for each in tables]
    parts += ["## Hypervisors", table(("status", "host", "VMs", "safe", "looked at"), hosts, right=("VMs", "safe"))]
    return "\n\n".join(parts) + "\n"


def verdict(tables: Sequence[HostTable]) -> str:
    """Everything in one line."""
    everything = [row for each in tables for row in each.rows]
    counts = Counter(row["status"] for row in everything if _is_source(row))
    others = sum(not _is_source(row) for row in everything)
    unsafe, warned = counts[Health.CRITICAL] + counts[Health.UNKNOWN], counts[Health.WARNING]
    if counts.total() == 1:
        said = f"The only VM is {'not ' if unsafe else ''}safe"
    else:
        said = f"{unsafe} of {counts.total()} VMs not safe" if unsafe else f"All {counts.total()} VMs are safe"
    said += f", {warned} with a warning" if warned else ""
    said += f", {others} other problem{'s' if others > 1 else ''}" if others else ""
    return f"{mark(worst(Health(row['status']) for row in everything)).split()[0]} {said}"


def _aged(found: HostTable, now: datetime, silent: timedelta) -> HostTable:
    """What a silent host said is no more than what was; its newest word counts as a problem."""
    age = now - found.time
    if age <= silent:
        return found
    said = f"{found.host} was last heard {duration(age)} ago; what is said of its VMs is as old"
    problem = {"status": Health.CRITICAL.value, "VM": "", "host": found.host, "what": said}
    return HostTable(found.host, found.time, [*found.rows, problem])


def _host(found: HostTable, pages: Mapping[str, str]) -> dict[str, str]:
    sources = [row for row in found.rows if _is_source(row)]
    return {
        "status": whole(mark(worst(Health(row["status"]) for row in found.rows))),
        "host": link(found.host, pages.get(host_key(found.host), "")),
        "VMs": str(len(sources)),
        "safe": str(sum(row["status"] == Health.OK for row in sources)),
        "looked at": whole(moment(found.time)),
    }


def _complaint(row: Row) -> str:
    who = row["VM"] or row["host"]
    return f"- {mark(row['status'])}: **{escaped(who)}** {escaped(row['what'])}"


def _cells(row: Row, pages: Mapping[str, str]) -> dict[str, str]:
    cells = {name: whole(escaped(row.get(name, ""))) for name in _COLUMNS} | {
        "status": mark(row["status"]).split()[0],
        "VM": link(row["VM"], pages.get(page_of(row), "")),
        "last good archive": whole(_short(row.get("last good archive", ""))),
        "uncovered": escaped(row.get("uncovered", "")),
    }
    return {_COLUMNS[name]: cell for name, cell in cells.items()}


def _short(time: str) -> str:
    """`2026-11-24 09:40:08Z` as `24 Nov 09:40`: the age tells the year."""
    try:
        return datetime.strptime(time, "%Y-%m-%d %H:%M:%SZ").strftime("%d %b %H:%M")  # noqa: DTZ007 - it stays UTC
    except ValueError:
        return time
