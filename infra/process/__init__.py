"""The one place that starts programs: environment, logging, time limits, secrets and failure wording."""

from infra.process.modules import own_module
from infra.process.runner import Child, Completed, describe, run, spawn
from infra.process.signals import HEEDED, HeldSignals

__all__ = ["HEEDED", "Child", "Completed", "HeldSignals", "describe", "own_module", "run", "spawn"]
