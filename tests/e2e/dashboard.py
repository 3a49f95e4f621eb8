"""What a Prefect server knows of runs, asked as its dashboard does: by its API alone."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from tests.guests import wait_for

Row = dict[str, Any]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A server at `api` (PREFECT_API_URL)."""

    api: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])  # what lets us in

    def _call(self, method: str, what: str, **more: Any) -> httpx.Response:
        return httpx.request(method, f"{self.api}/{what}", timeout=30, headers=dict(self.headers), **more)

    def _insist(self, method: str, what: str, **more: Any) -> httpx.Response:
        """Ask for what may be asked twice until the server, whose SQLite may be busy, answers."""

        def answer() -> httpx.Response | None:
            try:
                answered = self._call(method, what, **more)
            except httpx.TimeoutException:
                return None
            return answered if answered.status_code != httpx.codes.SERVICE_UNAVAILABLE else None

        return wait_for(answer, timeout=90, what=f"an answer to {method} {what}", interval=0.5)

    def ask(self, what: str, **filters: Any) -> list[Row]:
        """Rows of `/WHAT/filter`."""
        found: list[Row] = self._insist("POST", f"{what}/filter", json=filters).raise_for_status().json()
        return found

    def delete(self, what: str) -> None:
        """Delete one thing by its path; gone is gone."""
        answered = self._insist("DELETE", what)
        if answered.status_code != httpx.codes.NOT_FOUND:
            answered.raise_for_status()

    def runs(self, name: str) -> list[Row]:
        """The flow runs of this name, oldest first."""
        return self.ask("flow_runs", flow_runs={"name": {"any_": [name]}}, sort="EXPECTED_START_TIME_ASC")

    def last_run(self, name: str) -> Row:
        """The newest flow run of this name."""
        return self.runs(name)[-1]

    def wait_run(self, name: str, *, after: int = 0) -> Row:
        """The flow run of this name that comes after so many others."""
        return wait_for(lambda: self.runs(name)[after:], timeout=120, what=f"a run named {name}")[0]

    def run(self, run_id: str) -> Row:
        """One flow run."""
        found: Row = self._insist("GET", f"flow_runs/{run_id}").raise_for_status().json()
        return found

    def begin(self, deployment: str, **parameters: str) -> str:
        """Start a run of FLOW/NAME, as a click in the dashboard does; returns its id."""
        there: Row = self._insist("GET", f"deployments/name/{deployment}").raise_for_status().json()
        given = {"parameters": parameters}
        answer = self._call("POST", f"deployments/{there['id']}/create_flow_run", json=given).raise_for_status()
        return str(answer.json()["id"])

    def begin_at(self, deployment: str, when: datetime) -> str:
        """A run of FLOW/NAME at this time, as a schedule makes one; returns its id."""
        there: Row = self._insist("GET", f"deployments/name/{deployment}").raise_for_status().json()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}}
        wanted = {"state": state, "idempotency_key": secrets.token_hex(8)}
        answer = self._insist("POST", f"deployments/{there['id']}/create_flow_run", json=wanted)
        return str(answer.raise_for_status().json()["id"])

    def set_state(self, run_id: str, kind: str) -> None:
        """Put a run into a state, whatever it is doing."""
        wanted = {"state": {"type": kind}, "force": True}
        self._call("POST", f"flow_runs/{run_id}/set_state", json=wanted).raise_for_status()

    def wait_state(self, run_id: str, state: str, *, timeout: float) -> Row:
        """The flow run once it is in this state (its type); fails at once when it ended in another one."""

        def reached() -> Row | None:
            run = self.run(run_id)
            assert run["state_type"] not in FINAL - {state}, run["state"]
            return run if run["state_type"] == state else None

        return wait_for(reached, timeout=timeout, what=f"run {state}", interval=0.3)

    def tasks(self, run: Row) -> list[Row]:
        """The task runs of a flow run in the order in which they began."""
        chosen = {"id": {"any_": [run["id"]]}}
        return sorted(self.ask("task_runs", flow_runs=chosen), key=lambda task: task["start_time"])

    def task(self, run: Row, name: str) -> Row:
        """The newest task run of this name."""
        return [task for task in self.tasks(run) if task["name"] == name][-1]

    def history(self, task: Row) -> list[str]:
        """The names of all states that a task run went through."""
        query = {"task_run_id": task["id"]}
        answer = self._call("GET", "task_run_states/", params=query).raise_for_status()
        return [state["name"] for state in answer.json()]

    def logs(self, run: Row) -> list[Row]:
        """All log lines of a flow run and of its tasks."""
        wanted = {"flow_run_id": {"any_": [run["id"]]}}
        return self.ask("logs", logs=wanted, sort="TIMESTAMP_ASC")

    def artifact(self, run: Row, kind: str) -> Row | None:
        """The first artifact of this type that a run made, `progress` or `table`: the pages of the fleet come later."""
        wanted = {"flow_run_id": {"any_": [run["id"]]}, "type": {"any_": [kind]}}
        return next(iter(self.ask("artifacts", artifacts=wanted, sort="CREATED_DESC")[::-1]), None)


def moment(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text)
