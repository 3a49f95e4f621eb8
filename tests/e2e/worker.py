"""A process worker of this host, as a service manager would start it, with the deployments of this checkout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.process import run, spawn
from tests.e2e.dashboard import Dashboard, Row
from tests.e2e.prefect_server import PREFECT
from tests.guests import wait_for

CHECKOUT = Path(__file__).parents[2]


class Worker:
    """A work pool of its own on a server, the deployments in it, and a worker that serves it."""

    def __init__(self, api: str, pool: str, config: Path, home: Path) -> None:
        self.dashboard = Dashboard(api)
        self.pool = pool
        self.log = home / "worker.log"
        self._environment = {
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(home),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_CLI_PROMPT": "false",
            "VMBORG_CONFIG": str(config),
            "VMBORG_HOME": str(CHECKOUT),
            "VMBORG_POOL": pool,
        }

    def prefect(self, *arguments: str) -> str:
        """What `prefect ARGUMENTS` prints, run in the checkout."""
        command = [str(PREFECT), "--no-prompt", *arguments]
        done = run(command, timeout=120, env=self._environment, cwd=str(CHECKOUT))
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator["Worker"]:
        """Make the pool, deploy, serve; at the end all of it is gone from the server."""
        self.prefect("work-pool", "create", "--type", "process", self.pool)
        try:
            self.prefect("deploy", "--all")
            with self._process():
                yield self
        finally:
            self._forget()

    @contextmanager
    def _process(self) -> Iterator[None]:
        # Signals ignored by whoever started the tests would stay ignored in the worker, which then cannot be stopped.
        command = ["env", "--default-signal", str(PREFECT), "worker", "start", "--pool", self.pool]
        with (
            self.log.open("wb") as log,
            spawn(command, env=self._environment, cwd="/", stdout=log, stderr=log, own_session=True) as worker,
        ):
            wait_for(self._online, timeout=60, what="the worker", interval=0.3)
            yield
            worker.terminate(grace=20)

    def _online(self) -> bool:
        return any(worker["status"] == "ONLINE" for worker in self.dashboard.ask(f"work_pools/{self.pool}/workers"))

    def _forget(self) -> None:
        for deployment in self.deployments():
            self.dashboard.delete(f"deployments/{deployment['id']}")
        self.dashboard.delete(f"work_pools/{self.pool}")

    def deployments(self) -> list[Row]:
        """Those of this pool."""
        return self.dashboard.ask("deployments", work_pools={"name": {"any_": [self.pool]}})

    def start(self, flow: str, **parameters: str) -> str:
        """`prefect deployment run FLOW/POOL`; return the flow run's id."""
        before = {run["id"] for run in self._runs(flow)}
        given = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
        self.prefect("deployment", "run", f"{flow}/{self.pool}", *given)
        return next(run["id"] for run in self._runs(flow) if run["id"] not in before)

    def _runs(self, flow: str) -> list[Row]:
        chosen = {"name": {"any_": [flow]}}
        return self.dashboard.ask("flow_runs", flows=chosen, work_pools={"name": {"any_": [self.pool]}})
