"""The one place that starts programs: environment, logging, time limits, secrets and failure wording."""

from infra.process.runner import Child, Completed, describe, run, spawn

__all__ = ["Child", "Completed", "describe", "run", "spawn"]
