"""Verdicts of `status` and `doctor`: a level, what was found, what to do. Levels are those of monitoring plugins."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from infra.errors import VmborgError


class Health(StrEnum):
    """How well something is."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """The exit code of a monitoring plugin: 0, 1, 2, 3."""
        return list(Health).index(self)


_GRAVITY = (Health.OK, Health.WARNING, Health.UNKNOWN, Health.CRITICAL)


def worst(levels: Iterable[Health]) -> Health:
    """The gravest of several; ok for none. What is not known may be anything but is not known to be critical."""
    return max(levels, key=_GRAVITY.index, default=Health.OK)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis."""

    health: Health
    subject: str  # host, repository main, the VM's name
    check: str  # what was looked at, in a word or two
    text: str
    remedy: str = ""


def vm_argument(name: str) -> str:
    """A VM's name as it can be pasted behind a verb: quoted, and kept from being taken for an option."""
    quoted = shlex.quote(name)
    return f"-- {quoted}" if name.startswith("-") else quoted


def failed(error: VmborgError, *, subject: str, check: str, health: Health = Health.CRITICAL) -> Finding:
    """An error as a line of a diagnosis."""
    evidence = "; ".join(line.strip() for line in error.evidence.splitlines() if line.strip())
    text = f"{error.brief} {evidence}".strip()
    return Finding(health, subject, check, text, error.remedy)
