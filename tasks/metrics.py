"""What `vmborg status` says, as text that node_exporter's textfile collector reads. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from tasks.status import Status

_KINDS = {
    "vmborg_health": "Health of this host: 0 ok, 1 warning, 2 critical, 3 unknown.",
    "vmborg_vm_health": "Health of a VM: 0 ok, 1 warning, 2 critical, 3 unknown.",
    "vmborg_vm_last_good_archive_timestamp_seconds": "When the last good archive of a VM was taken; none if never.",
    "vmborg_vm_objective_seconds": "How old the last good archive of a VM may be.",
    "vmborg_vm_uncovered_disks": "Writable disks of a VM that its last good archive does not hold.",
    "vmborg_dumps_health": "Health of a dump host: 0 ok, 1 warning, 2 critical, 3 unknown.",
    "vmborg_dumps_last_good_archive_timestamp_seconds": "When the last good dumps of a host were taken; none if never.",
    "vmborg_dumps_objective_seconds": "How old the last good dumps of a host may be.",
    "vmborg_problem": "Health of what concerns no single VM; there is a line only while something is wrong.",
    "vmborg_metrics_timestamp_seconds": "When this was written.",
}

Sample = tuple[str, Mapping[str, str], float]
"""Name, labels, value."""


def render_metrics(status: Status, host: str, *, now: datetime) -> str:
    """The whole text; VMs that are excluded are left out."""
    found = [*_host(status, now), *_vms(status), *_dumps(status)]
    text = ""
    for name, meaning in _KINDS.items():
        lines = [_line(name, {"host": host, **labels}, value) for kind, labels, value in found if kind == name]
        text += "".join([f"# HELP {name} {meaning}\n# TYPE {name} gauge\n", *lines]) if lines else ""
    return text


def _host(status: Status, now: datetime) -> Iterator[Sample]:
    yield "vmborg_health", {}, status.health.exit_code
    yield "vmborg_metrics_timestamp_seconds", {}, now.timestamp()
    for problem in {(each.subject, each.check): each for each in status.problems}.values():
        labels = {"subject": problem.subject, "check": problem.check}
        yield "vmborg_problem", labels, problem.health.exit_code


def _vms(status: Status) -> Iterator[Sample]:
    for vm in status.vms:
        if vm.excluded_by is not None:
            continue
        labels = {"vm": vm.vm, "uuid": vm.uuid, "repository": vm.repository}
        yield "vmborg_vm_health", labels, vm.health.exit_code
        yield "vmborg_vm_uncovered_disks", labels, len(vm.uncovered)
        if vm.time is not None:
            yield "vmborg_vm_last_good_archive_timestamp_seconds", labels, vm.time.timestamp()
        if vm.objective is not None:
            yield "vmborg_vm_objective_seconds", labels, vm.objective.total_seconds()


def _dumps(status: Status) -> Iterator[Sample]:
    for dump in status.dumps:
        labels = {"dumps": dump.host, "repository": dump.repository}
        yield "vmborg_dumps_health", labels, dump.health.exit_code
        if dump.objective is not None:
            yield "vmborg_dumps_objective_seconds", labels, dump.objective.total_seconds()
        if dump.time is not None:
            yield "vmborg_dumps_last_good_archive_timestamp_seconds", labels, dump.time.timestamp()


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value:.0f}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
