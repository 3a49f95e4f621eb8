"""One line a source: as `vmborg status` prints it, and as the fleet's table shows it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasks.dumps.status import DumpStatus
from tasks.status import Status, VmStatus
from tasks.units import duration, moment, size

RIGHT = ("age", "objective", "size", "new data", "took")
"""The columns of numbers."""
LESS = ("took", "new data", "size", "state", "objective", "proven")
"""Columns that a narrow terminal can do without, in the order in which they go."""
_UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Line:
    """One source: its level, and each cell as text by the name of its column."""

    vm: VmStatus | None  # None: a dump host
    cells: dict[str, str]


def lines(status: Status) -> Iterator[Line]:
    """Every VM, then every dump host."""
    for vm in status.vms:
        yield Line(vm, vm_cells(vm))
    for dump in status.dumps:
        yield Line(None, dump_cells(dump))


def vm_cells(vm: VmStatus) -> dict[str, str]:
    """The cells of a VM, in order."""
    return {
        "status": vm.health.value,
        "VM": vm.vm,
        "state": vm.state,
        "last good archive": moment(vm.time),
        "age": _span(vm.age),
        "objective": _span(vm.objective if vm.excluded_by is None else None),
        "size": _amount(vm.size),
        "new data": _amount(vm.stored),
        "took": _span(timedelta(seconds=vm.seconds)) if vm.seconds is not None else _UNKNOWN,
        "consistency": vm.consistency or _UNKNOWN,
        "uncovered": ", ".join(vm.uncovered) or _UNKNOWN,
        "proven": _day(vm.proven),
        "what": _what(vm.text, vm.remedy),
    }


def dump_cells(dump: DumpStatus) -> dict[str, str]:
    """The cells of a dump host, in the same order."""
    return {
        "status": dump.health.value,
        "VM": f"dumps of {dump.host}",
        "state": _UNKNOWN,
        "last good archive": moment(dump.time),
        "age": _span(dump.age),
        "objective": _span(dump.objective),
        "size": _UNKNOWN,
        "new data": _UNKNOWN,
        "took": _UNKNOWN,
        "consistency": "dump",
        "uncovered": _UNKNOWN,
        "proven": _UNKNOWN,
        "what": _what(dump.text, dump.remedy),
    }


def _what(text: str, remedy: str) -> str:
    return f"{text}; {remedy}" if remedy else text


def _day(when: datetime | None) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d") if when else _UNKNOWN


def _span(span: timedelta | None) -> str:
    return duration(span) if span is not None else _UNKNOWN


def _amount(count: int | None) -> str:
    return size(count) if count is not None else _UNKNOWN
