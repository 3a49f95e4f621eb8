"""The errors of drills; the others, and what all have in common: infra/errors.py.

VmborgError
└── DrillError
    ├── NotIsolated             the drill's definition reaches something outside of its scratch folder; nothing started
    ├── NotProvable             this host cannot try it: memory, space, architecture, machine type, an encrypted guest
    ├── ProbeFailed             what was restored does not do what it should
    └── DrillLeft               what a dead drill left cannot be taken away
"""

from infra.errors import VmborgError


class DrillError(VmborgError):
    """A restore test did not come to a good end."""


class NotIsolated(DrillError):
    """The throw-away definition could touch the original, its host or the network; it is not started."""


class NotProvable(DrillError):
    """Nothing is said about the archive: this host cannot try it."""


class ProbeFailed(DrillError):
    """The restored VM, or dump, does not do what it should."""


class DrillLeft(DrillError):
    """What a drill that died has left on this host could not be taken away."""
