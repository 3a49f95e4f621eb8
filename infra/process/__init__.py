"""The one place that starts programs: environment, logging, time limits, secrets and failure wording."""

from infra.process.runner import Child, Completed, describe, run, spawn
from infra.process.signals import HEEDED, HeldSignals

__all__ = ["HEEDED", "Child", "Completed", "HeldSignals", "describe", "run", "spawn"]
