"""A process worker of this host, as a service manager would start it, with the deployments of this checkout."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.config.load import load
from infra.process import Child, run, spawn
from tests.e2e.dashboard import Dashboard, Row
from tests.e2e.prefect_server import PREFECT
from tests.guests import wait_for
from tests.integration.vmborg import vmborg

CHECKOUT = Path(__file__).parents[2]


class Worker:
    """A work pool of its own on a server, the deployments in it, and a worker that serves it."""

    def __init__(
        self,
        api: str,
        config: Path,
        home: Path,
        *,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        dashboard: Dashboard | None = None,
    ) -> None:
        self.dashboard = dashboard or Dashboard(api)
        self.config = config
        self.pool = load(config).hypervisor.name
        self.log = home / "worker.log"
        self._prefix = prefix  # what confines it, in front of the command
        self._stack = ExitStack()
        self._child: Child | None = None
        self._environment = {
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(home),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_CLI_PROMPT": "false",
            **(env or {}),
        }

    def prefect(self, *arguments: str) -> str:
        """What `prefect ARGUMENTS` prints, run in the checkout."""
        command = [str(PREFECT), "--no-prompt", *arguments]
        done = run(command, timeout=120, env=self._environment, cwd=str(CHECKOUT))
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator["Worker"]:
        """Deploy and serve; at the end the pool and all deployments are gone from the server."""
        try:
            self.deploy()
            self.ensure()
            yield self
        finally:
            self.stop()
            self._forget()

    def deploy(self) -> None:
        """`vmborg deploy`."""
        call = vmborg("deploy", config=self.config, env=self._environment)
        assert call.code == 0, call.stderr

    @property
    def pid(self) -> int:
        """The worker's process."""
        assert self._child is not None
        return self._child.pid

    def ensure(self) -> None:
        """Start a worker, unless one runs."""
        if self._child is not None and self._child.poll() is None:
            return
        self._stack.close()
        dead = {worker["name"] for worker in self._workers()}
        # Signals ignored by whoever started the tests would stay ignored in the worker, which then cannot be stopped.
        command = [*self._prefix, "env", "--default-signal", str(PREFECT), "worker", "start", "--pool", self.pool]
        log = self._stack.enter_context(self.log.open("ab"))
        child = spawn(command, env=self._environment, cwd="/", stdout=log, stderr=log, own_session=True)
        self._child = self._stack.enter_context(child)

        def online() -> bool:
            return any(each["status"] == "ONLINE" and each["name"] not in dead for each in self._workers())

        wait_for(online, timeout=60, what="the worker", interval=0.3)

    def _workers(self) -> list[Row]:
        return self.dashboard.ask(f"work_pools/{self.pool}/workers")

    def stop(self) -> None:
        """End the worker, if one runs."""
        if self._child is not None:
            self._child.terminate(grace=20)
        self._stack.close()
        self._child = None

    def ended(self, timeout: float = 30) -> None:
        """Wait for the worker's end."""
        assert self._child is not None
        self._child.wait(timeout)

    def _forget(self) -> None:
        for deployment in self.deployments():
            self.dashboard.delete(f"deployments/{deployment['id']}")
        self.dashboard.delete(f"work_pools/{self.pool}")

    def unschedule(self) -> None:
        """Take all schedules away: only `start` begins runs then."""
        for deployment in self.deployments():
            for schedule in deployment["schedules"]:
                self.dashboard.delete(f"deployments/{deployment['id']}/schedules/{schedule['id']}")

    def deployments(self) -> list[Row]:
        """Those of this pool."""
        return self.dashboard.ask("deployments", work_pools={"name": {"any_": [self.pool]}})

    def start(self, flow: str, **parameters: str) -> str:
        """`prefect deployment run FLOW/POOL`; return the flow run's id."""
        before = {run["id"] for run in self.runs(flow)}
        given = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
        self.prefect("deployment", "run", f"{flow}/{self.pool}", *given)
        return next(run["id"] for run in self.runs(flow) if run["id"] not in before)

    def runs(self, flow: str) -> list[Row]:
        """The runs of this flow in this pool."""
        chosen = {"name": {"any_": [flow]}}
        return self.dashboard.ask("flow_runs", flows=chosen, work_pools={"name": {"any_": [self.pool]}})
