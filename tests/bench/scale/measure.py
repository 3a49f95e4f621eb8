"""A night of many hosts on one server, with SQLite and with PostgreSQL: python -m tests.bench scale.

Everything happens at once that a real night spreads over hours, so what is measured is the worst of it.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from infra.process import Child, spawn
from tests.bench.figures import tell
from tests.bench.scale.hosts import AROUND, AROUND_S
from tests.bench.scale.servers import Server, postgres_server, sqlite_server
from tests.bench.world import say
from tests.e2e.dashboard import FINAL, Dashboard, Row
from tests.e2e.held import command
from tests.e2e.units import unit_environment
from tests.guests import wait_for

MARKS = ("<!-- scale begins -->", "<!-- scale ends -->")
MIB = 1024**2
PROCESSES = 4
"""So many processes are all hosts together."""

LOOK_S = 2.0
"""Seconds between two looks at the server, each with a question as a page of the dashboard asks it."""

SLOW_S = 5.0
"""An answer that takes longer is one that people notice."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    hosts: int = 40
    vms: int = 25
    seconds: float = 20.0  # of a copy, on the average
    spread: float = 120.0  # within which the hosts begin

    @property
    def names(self) -> list[str]:
        """The hosts."""
        return [f"kvm{number:02}" for number in range(1, self.hosts + 1)]

    @property
    def ideal(self) -> float:
        """Seconds from the first host's beginning to the last one's end, if nobody waited for the server."""
        return self.spread + self.vms * (self.seconds + AROUND_S * (1 + len(AROUND[1])))


@dataclass(slots=True)
class Watch:
    """What was seen of a server: seconds, bytes."""

    answers: list[float] = field(default_factory=list[float])
    lost: int = 0  # questions without an answer
    peak: int = 0


def main(target: Path | None, plan: Plan = Plan()) -> int:
    """Measure both, print, write; exit code 1 when a run did not complete on PostgreSQL, which is what we recommend."""
    columns: dict[str, Mapping[str, str]] = {}
    failed = 0
    for name, serving in (("SQLite", sqlite_server), ("PostgreSQL", postgres_server)):
        say(f"{plan.hosts} hosts with {plan.vms} VMs each, {name}")
        with tempfile.TemporaryDirectory(prefix="vmborg-scale-", dir="/var/tmp") as folder:
            root = Path(folder)
            root.chmod(0o755)  # PostgreSQL's own user has to come through
            with serving(root) as server:
                columns[name], failed = night(server, plan, root)
    text = _table(columns)
    tell(text, target, MARKS)
    return 1 if failed else 0


# --------------------------------------------------------------------------------------------------------- the night


def night(server: Server, plan: Plan, root: Path) -> tuple[Mapping[str, str], int]:
    """One night: what it cost, and how many runs did not complete."""
    dashboard = Dashboard(server.api)
    begun = time.monotonic()
    with simulated(server, plan, root):
        deployed = time.monotonic() - begun
        size, cpu, watch = server.size(), _cpu(server.pids()), Watch()
        first = datetime.now(UTC) + timedelta(seconds=15)
        with watching(server, watch):
            fleets = [_schedule(dashboard, plan, number, first) for number in range(plan.hosts)]
            _wait(dashboard, fleets, timeout=plan.ideal * 4 + 600)
        took = (datetime.now(UTC) - first).total_seconds()
        cpu, size = _cpu(server.pids()) - cpu, server.size() - size
        runs = _runs(dashboard, first)
    backups = [run for run in runs if run["id"] not in fleets]
    complete = [run for run in backups if run["state_name"] == "Completed"]
    late = [_late(run) for run in runs if run["id"] in fleets and run["start_time"]]
    locked = server.log.read_text(encoding="utf-8", errors="replace").count("database is locked")
    wanted = plan.hosts * plan.vms
    rows = {
        "`vmborg deploy` of all hosts": f"{deployed:.0f} s",
        "backups that completed": f"{len(complete)} of {wanted}",
        "the night took, of what it would with an idle server": f"{took:.0f} s, {took / plan.ideal:.2f}x",
        "a host begins later than scheduled: median, most": f"{median(late):.1f} s, {max(late):.1f} s" if late else "-",
        "an answer to a page: median, 95 %, most": _answers(watch.answers),
        "questions without an answer": str(watch.lost),
        "CPU of server and database, for each backup": f"{cpu / wanted:.2f} s",
        "the same as cores that were busy": f"{cpu / took:.2f}",
        "memory of both, peak": f"{watch.peak / MIB:.0f} MiB",
        "growth of the database, for each backup": f"{size / wanted / 1024:.0f} KiB",
        "“database is locked” in the server's log": str(locked),
    }
    return rows, wanted - len(complete)


@contextmanager
def simulated(server: Server, plan: Plan, root: Path) -> Iterator[None]:
    """The hosts, deployed and served."""
    (root / "plan.json").write_text(json.dumps({"vms": plan.vms, "seconds": plan.seconds}), encoding="utf-8")
    shares = [share for number in range(PROCESSES) if (share := plan.names[number::PROCESSES])]
    environment = {
        **unit_environment("vmborg-worker.service"),
        "PREFECT_API_URL": server.api,
        "PREFECT_HOME": str(root),
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    with ExitStack() as stack:
        for share in shares:  # one after the other: SQLite answers 503 to four that deploy at once
            argv = [sys.executable, "-m", "tests.bench.scale.hosts", str(root / "plan.json"), *share]
            log = stack.enter_context((root / f"{share[0]}.log").open("wb"))
            child = stack.enter_context(spawn(argv, env=environment, stdout=log, stderr=log, own_session=True))
            stack.callback(child.kill)
            wait_for(partial(_ready, root, share, child), timeout=900, what=f"the hosts of {share[0]}", interval=0.5)
        yield


def _ready(root: Path, share: Sequence[str], child: Child) -> bool:
    assert child.poll() is None, (root / f"{share[0]}.log").read_text(errors="replace")[-2000:]
    return (root / f"{share[0]}.ready").exists()


def _schedule(dashboard: Dashboard, plan: Plan, number: int, first: datetime) -> str:
    """A run of one host's fleet at its time within the spread; its id."""
    when = first + timedelta(seconds=plan.spread * number / plan.hosts)
    return dashboard.begin_at(f"backup-fleet/{plan.names[number]}", when)


def _wait(dashboard: Dashboard, fleets: Sequence[str], *, timeout: float) -> None:
    """Wait until all have ended, however."""
    deadline = time.monotonic() + timeout
    told = time.monotonic()
    while time.monotonic() < deadline:
        rows = dashboard.ask("flow_runs", flow_runs={"id": {"any_": list(fleets)}})
        ended = [row for row in rows if row["state_type"] in FINAL]
        if len(ended) == len(fleets):
            return
        if time.monotonic() - told > 60:
            told = time.monotonic()
            say(f"{len(ended)} of {len(fleets)} hosts are done")
        time.sleep(LOOK_S)
    say("given up: not every host came to an end")


def _runs(dashboard: Dashboard, first: datetime) -> list[Row]:
    """Every run that was to start since then."""
    found: list[Row] = []
    kinds = {"expected_start_time": {"after_": first.isoformat()}, "state": {"type": {"any_": sorted(FINAL)}}}
    while page := dashboard.ask("flow_runs", flow_runs=kinds, offset=len(found), limit=200, sort="ID_DESC"):
        found += page
    return found


def _late(run: Row) -> float:
    began, expected = (datetime.fromisoformat(run[key]) for key in ("start_time", "expected_start_time"))
    return (began - expected).total_seconds()


# ------------------------------------------------------------------------------------------------------- the watching


@contextmanager
def watching(server: Server, watch: Watch) -> Generator[None]:
    """Ask the server every now and then, and look at its memory."""
    over = threading.Event()

    def look() -> None:
        with httpx.Client(timeout=60) as client:
            while not over.wait(LOOK_S):
                watch.peak = max(watch.peak, sum(map(_memory, server.pids())))
                begun = time.monotonic()
                try:
                    question: dict[str, Any] = {"limit": 50, "sort": "START_TIME_DESC"}
                    client.post(f"{server.api}/flow_runs/filter", json=question).raise_for_status()
                except httpx.HTTPError:
                    watch.lost += 1
                watch.answers.append(time.monotonic() - begun)

    thread = threading.Thread(target=look, name="watch")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _memory(pid: int) -> int:
    """Bytes that a process has for itself, and its part of what it shares."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _cpu(pids: Sequence[int]) -> float:
    """Seconds that these processes, and those of theirs that ended, have computed."""
    ticks = 0
    for pid in pids:
        if command(pid):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


# ----------------------------------------------------------------------------------------------------------- the table


def _answers(answers: Sequence[float]) -> str:
    slow = sum(each > SLOW_S for each in answers)
    tail = f"; {slow} of {len(answers)} over {SLOW_S:.0f} s" if slow else ""
    return f"{median(answers):.2f} s, {quantiles(answers, n=20)[-1]:.2f} s, {max(answers):.2f} s{tail}"


def _table(columns: Mapping[str, Mapping[str, str]]) -> str:
    names = list(columns)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    lines += [f"| {row} | {' | '.join(columns[name][row] for name in names)} |" for row in columns[names[0]]]
    return "\n".join(lines)
