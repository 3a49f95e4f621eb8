"""What a run is called, so that people understand it, and who has started it."""

from collections.abc import Callable

from prefect.context import FlowRunContext

HOST_TAG = "vmborg:"
"""Every deployment of a host, and so every run of it, has this tag with the host's name behind it."""


def on_host(what: str) -> Callable[[], str]:
    """A run's name: `what`, and the host if a deployment has started it. Prefect calls it when the run begins."""

    def name() -> str:
        context = FlowRunContext.get()
        tags = context.flow_run.tags if context and context.flow_run else []
        host = next((tag.removeprefix(HOST_TAG) for tag in tags if tag.startswith(HOST_TAG)), "")
        return f"{what} on {host}" if host else what

    return name


def is_deployed_alone() -> bool:
    """Whether a deployment, and no other flow run, has started the current flow run."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return bool(run and run.deployment_id and not run.parent_task_run_id)
