"""Bring the log lines of infra/ into the Prefect run they belong to."""

import logging

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from infra.errors import VmborgError


class _RunLogHandler(APILogHandler):
    """Prefect's handler, silent for lines of threads that belong to no run (it would warn about each)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send the line to the run that is current in this thread."""
        if TaskRunContext.get() or FlowRunContext.get():
            super().emit(record)


class _NoTraceOfTypedErrors(logging.Filter):
    """Our own errors say what failed and what to do; where in the code they were raised helps nobody."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, without the traceback if it is of a VmborgError."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, VmborgError):
            record.exc_info = None
            record.msg = f"{record.getMessage()}\n{error}"
            record.args = ()
        return True


def forward_to_run() -> None:
    """Send our loggers' lines to the run and to Prefect's console. Calling it again changes nothing.

    The same as PREFECT_LOGGING_EXTRA_LOGGERS=vmborg, without asking every worker to set it.
    """
    ours = logging.getLogger("vmborg")
    if any(isinstance(handler, _RunLogHandler) for handler in ours.handlers):
        return
    ours.handlers[:] = [_RunLogHandler()]  # in place of the command's own stderr handler
    ours.propagate = True  # the root logger has Prefect's console handler
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_NoTraceOfTypedErrors())
    if ours.level in (logging.NOTSET, logging.WARNING):
        ours.setLevel(logging.INFO)
